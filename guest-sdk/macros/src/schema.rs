//! `#[derive(Schema)]`: JSON Schema of what serde's `Deserialize` takes, as a constant.

mod attributes;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, Result, Variant};

pub(crate) use attributes::json;
use attributes::{Container, Field, Rename, VariantAttributes, documentation};

/// The `impl`.
pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    if let Some(parameter) = input.generics.params.first() {
        return Err(Error::new(parameter.span(), "`Schema` can be derived of types without parameters"));
    }
    let container = Container::read(&input.attrs)?;
    let schema = match &input.data {
        _ if container.from.is_some() => {
            let from = &container.from;
            quote! { <#from as ::weir_sdk::schema::Schema>::SCHEMA }
        }
        Data::Struct(data) => of_struct(&data.fields, &container)?,
        Data::Enum(data) => of_enum(data.variants.iter(), &container)?,
        Data::Union(_) => return Err(Error::new(input.span(), "serde reads no unions")),
    };
    let name = &input.ident;
    let description = description(&input.attrs);
    Ok(quote! {
        impl ::weir_sdk::schema::Schema for #name {
            const SCHEMA: &'static str = #schema;
            const DESCRIPTION: &'static str = #description;
        }
    })
}

/// `"description":"..."`, or nothing.
fn description(attributes: &[syn::Attribute]) -> String {
    match documentation(attributes) {
        text if text.is_empty() => text,
        text => format!("\"description\":{}", json(&text)),
    }
}

/// An expression for a text that is put together of parts, which are expressions.
fn concat(parts: &[TokenStream]) -> TokenStream {
    quote! { const { &::weir_sdk::schema::Text::concat(&[#(#parts),*]) }.as_str() }
}

fn list(open: &str, parts: &[TokenStream], close: &str) -> TokenStream {
    quote! { const { &::weir_sdk::schema::Text::list(#open, &[#(#parts),*], #close) }.as_str() }
}

fn of_struct(fields: &Fields, container: &Container) -> Result<TokenStream> {
    match fields {
        Fields::Named(named) => match named.named.first() {
            Some(only) if container.transparent => field(only, &Field::read(&only.attrs)?),
            _ => object(fields, container, container.rename_all, None),
        },
        Fields::Unnamed(unnamed) => match unnamed.unnamed.first() {
            Some(only) if unnamed.unnamed.len() == 1 => field(only, &Field::read(&only.attrs)?),
            _ => tuple(fields),
        },
        Fields::Unit => Ok(r#"{"type":"null"}"#.to_token_stream()),
    }
}

/// The schema of a field's value, with what its documentation says.
fn field(field: &syn::Field, attributes: &Field) -> Result<TokenStream> {
    let ty = &field.ty;
    let schema = if attributes.by_function {
        // What a function of its own takes is not to be seen from here.
        "{}".to_token_stream()
    } else {
        quote! { <#ty as ::weir_sdk::schema::Schema>::SCHEMA }
    };
    let description = description(&field.attrs);
    if description.is_empty() {
        return Ok(schema);
    }
    Ok(quote! { const { &::weir_sdk::schema::Text::with(#schema, #description) }.as_str() })
}

/// A struct with names. `tag`: a member that says which variant it is.
fn object(
    fields: &Fields,
    container: &Container,
    rename: Rename,
    tag: Option<(&str, &str)>,
) -> Result<TokenStream> {
    let (mut properties, mut required) = (Vec::new(), Vec::new());
    if let Some((tag, name)) = tag {
        let property = format!("{}:{{\"const\":{}}}", json(tag), json(name));
        properties.push(property.to_token_stream());
        required.push(json(tag).to_token_stream());
    }
    for member in fields {
        let attributes = Field::read(&member.attrs)?;
        let Some(ident) = member.ident.as_ref().filter(|_| !attributes.skip) else { continue };
        let name = attributes.name(&ident.to_string(), rename);
        let schema = field(member, &attributes)?;
        for name in std::iter::once(&name).chain(&attributes.aliases) {
            let key = format!("{}:", json(name));
            properties.push(concat(&[key.to_token_stream(), schema.clone()]));
        }
        // Of several names one is there.
        if !attributes.default && !container.default && attributes.aliases.is_empty() {
            let (ty, name) = (&member.ty, json(&name));
            let may_be_absent = if attributes.by_function {
                quote! { false }
            } else {
                quote! { <#ty as ::weir_sdk::schema::Schema>::OPTIONAL }
            };
            required.push(quote! { if #may_be_absent { "" } else { #name } });
        }
    }
    let (properties, required) = (list("", &properties, "}"), list("", &required, "]"));
    let end = if container.deny_unknown { r#","additionalProperties":false}"# } else { "}" };
    let parts = [
        r#"{"type":"object","properties":{"#.to_token_stream(),
        properties,
        r#","required":["#.to_token_stream(),
        required,
        end.to_token_stream(),
    ];
    Ok(concat(&parts))
}

/// A list of so many.
fn tuple(fields: &Fields) -> Result<TokenStream> {
    let items: Vec<TokenStream> =
        fields.iter().map(|item| field(item, &Field::read(&item.attrs)?)).collect::<Result<_>>()?;
    let count = items.len();
    let end = format!("],\"minItems\":{count},\"maxItems\":{count}}}");
    Ok(list(r#"{"type":"array","prefixItems":["#, &items, &end))
}

fn of_enum<'a>(variants: impl Iterator<Item = &'a Variant>, container: &Container) -> Result<TokenStream> {
    let (mut words, mut others) = (Vec::new(), Vec::new());
    for variant in variants {
        let attributes = VariantAttributes::read(&variant.attrs)?;
        if attributes.skip {
            continue;
        }
        let name = attributes.field.name(&variant.ident.to_string(), container.rename_all.of_variants());
        let names = std::iter::once(&name).chain(&attributes.field.aliases);
        match (&container.tag, matches!(variant.fields, Fields::Unit)) {
            (None, true) if !container.untagged => words.extend(names.map(|name| json(name))),
            _ => others.push(of_variant(variant, &name, &attributes, container)?),
        }
    }
    if !words.is_empty() {
        others.insert(0, format!("{{\"enum\":[{}]}}", words.join(",")).to_token_stream());
    }
    match others.as_slice() {
        [only] => Ok(only.clone()),
        all => Ok(list(r#"{"anyOf":["#, all, "]}")),
    }
}

fn of_variant(
    variant: &Variant,
    name: &str,
    attributes: &VariantAttributes,
    container: &Container,
) -> Result<TokenStream> {
    let rename = attributes.rename_all;
    if let Some(tag) = &container.tag {
        return match &variant.fields {
            Fields::Named(_) | Fields::Unit => object(&variant.fields, container, rename, Some((tag, name))),
            Fields::Unnamed(_) => Err(Error::new(
                variant.span(),
                "a variant with a tag inside can be described when its fields have names; name them here",
            )),
        };
    }
    let inner = match &variant.fields {
        Fields::Named(_) => object(&variant.fields, container, rename, None)?,
        fields @ (Fields::Unnamed(_) | Fields::Unit) => of_struct(fields, container)?,
    };
    if container.untagged {
        return Ok(inner);
    }
    let name = json(name);
    let open = format!("{{\"type\":\"object\",\"properties\":{{{name}:");
    let close = format!("}},\"required\":[{name}],\"additionalProperties\":false}}");
    Ok(concat(&[open.to_token_stream(), inner, close.to_token_stream()]))
}
