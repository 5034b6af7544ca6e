//! The attributes of `weir-sdk`: they export exactly the callbacks that a filter implements.
//!
//! A callback that is not exported is never called and costs nothing, so what to export must follow from the
//! code and not from a list beside it.

mod exports;
mod grants;
mod methods;
mod schema;

use proc_macro::TokenStream;
use proc_macro2::Span;
use quote::quote;
use syn::{ImplItem, ItemImpl, Type, parse_macro_input, parse_quote};

/// Makes an `impl HttpFilter for X` the filter of this module.
///
/// Its methods about messages are `fn` or `async fn`. Only when one of them is an `async fn` are the callbacks exported by
/// which the host answers what it awaits; `weir plugin build` leaves out those of what is awaited nowhere.
///
/// What the filter needs beyond what every filter has can be said, in the words of a filter's `grants` in Weir's
/// configuration: `#[weir_sdk::http_filter(grants(clusters = ["authz"], headers = "read", reply = true))]`. It stands in
/// the module, beside the crate's name and version and the schema of the configuration, for `weir check` and
/// `weir plugin inspect`. It only asks: the operator grants.
#[proc_macro_attribute]
pub fn http_filter(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut item = parse_macro_input!(item as ItemImpl);
    let grants = match grants::read(arguments.into()) {
        Ok(grants) => grants,
        Err(error) => return error.into_compile_error().into(),
    };
    let expanded = prepare(&mut item, "HttpFilter").and_then(|()| {
        let methods = methods::of(&mut item)?;
        let (all, awaits) = (methods.bits(), methods.awaiting_bits());
        item.items.push(parse_quote! { #[doc(hidden)] const METHODS: u32 = #all; });
        item.items.push(parse_quote! { #[doc(hidden)] const AWAITS: u32 = #awaits; });
        let names = names(&item);
        let callbacks = exports::of(&names, &methods).into_iter().map(ident);
        let (filter, ticks) = (&item.self_ty, names.iter().any(|name| name == "on_tick"));
        Ok(quote! { #item ::weir_sdk::export_http! { #filter, #ticks, #grants: #(#callbacks)* } })
    });
    expanded.unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes an `impl NetworkFilter for X` the filter of this module. It takes `grants(...)` as [`macro@http_filter`] does.
#[proc_macro_attribute]
pub fn network_filter(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut item = parse_macro_input!(item as ItemImpl);
    let grants = match grants::read(arguments.into()) {
        Ok(grants) => grants,
        Err(error) => return error.into_compile_error().into(),
    };
    let expanded = prepare(&mut item, "NetworkFilter").map(|()| {
        let names = names(&item);
        let (filter, ticks) = (&item.self_ty, names.iter().any(|name| name == "on_tick"));
        let methods = names.iter().map(|name| ident(name));
        quote! { #item ::weir_sdk::export_network! { #filter, #ticks, #grants: #(#methods)* } }
    });
    expanded.unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Derives the schema of a configuration from what serde reads: see the module `schema` of `weir-sdk`.
#[proc_macro_derive(Schema, attributes(serde))]
pub fn derive_schema(item: TokenStream) -> TokenStream {
    let input = parse_macro_input!(item as syn::DeriveInput);
    schema::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Checks where the attribute stands, and adds what may be left out.
fn prepare(item: &mut ItemImpl, wanted: &str) -> syn::Result<()> {
    let is_wanted =
        |(_, path, _): &(_, syn::Path, _)| path.segments.last().is_some_and(|last| last.ident == wanted);
    if !item.trait_.as_ref().is_some_and(is_wanted) {
        let message = format!("put this attribute on `impl {wanted} for ...`");
        return Err(syn::Error::new_spanned(&item.self_ty, message));
    }
    for (name, default) in [("Config", parse_quote!(())), ("Stream", parse_quote!(()))] {
        add_type(item, name, &default);
    }
    Ok(())
}

/// Adds an associated type that the filter leaves out.
fn add_type(item: &mut ItemImpl, name: &str, default: &Type) {
    let there = item.items.iter().any(|item| matches!(item, ImplItem::Type(ty) if ty.ident == name));
    if !there {
        let name = ident(name);
        item.items.push(parse_quote! { type #name = #default; });
    }
}

/// The callbacks that a filter has a method for.
fn names(item: &ItemImpl) -> Vec<String> {
    let name = |item: &ImplItem| {
        let ImplItem::Fn(method) = item else { return None };
        Some(method.sig.ident.to_string())
    };
    item.items.iter().filter_map(name).filter(|name| name.starts_with("on_")).collect()
}

fn ident(name: &str) -> syn::Ident {
    syn::Ident::new(name, Span::call_site())
}
