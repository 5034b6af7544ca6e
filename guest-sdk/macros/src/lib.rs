//! The attributes of `weir-sdk`: they export exactly the callbacks that a filter implements.
//!
//! A callback that is not exported is never called and costs nothing, so what to export must follow from the
//! code and not from a list beside it.

use proc_macro::TokenStream;
use proc_macro2::Span;
use quote::quote;
use syn::{ImplItem, ItemImpl, Type, parse_macro_input, parse_quote};

/// Makes an `impl HttpFilter for X` the filter of this module.
#[proc_macro_attribute]
pub fn http_filter(_: TokenStream, item: TokenStream) -> TokenStream {
    expand(parse_macro_input!(item as ItemImpl), "HttpFilter", "export_http")
}

/// Makes an `impl NetworkFilter for X` the filter of this module.
#[proc_macro_attribute]
pub fn network_filter(_: TokenStream, item: TokenStream) -> TokenStream {
    expand(parse_macro_input!(item as ItemImpl), "NetworkFilter", "export_network")
}

fn expand(mut item: ItemImpl, wanted: &str, export: &str) -> TokenStream {
    let is_wanted =
        |(_, path, _): &(_, syn::Path, _)| path.segments.last().is_some_and(|last| last.ident == wanted);
    if !item.trait_.as_ref().is_some_and(is_wanted) {
        let message = format!("put this attribute on `impl {wanted} for ...`");
        return syn::Error::new_spanned(&item.self_ty, message).into_compile_error().into();
    }
    for (name, default) in [("Config", parse_quote!(())), ("Stream", parse_quote!(()))] {
        add_type(&mut item, name, &default);
    }
    let methods = item.items.iter().filter_map(|item| {
        let ImplItem::Fn(method) = item else { return None };
        method.sig.ident.to_string().starts_with("on_").then_some(&method.sig.ident)
    });
    let (filter, export) = (&item.self_ty, syn::Ident::new(export, Span::call_site()));
    let exports = quote! { ::weir_sdk::#export! { #filter: #(#methods)* } };
    quote! { #item #exports }.into()
}

/// Adds an associated type that the filter leaves out.
fn add_type(item: &mut ItemImpl, name: &str, default: &Type) {
    let there = item.items.iter().any(|item| matches!(item, ImplItem::Type(ty) if ty.ident == name));
    if !there {
        let name = syn::Ident::new(name, Span::call_site());
        item.items.push(parse_quote! { type #name = #default; });
    }
}
