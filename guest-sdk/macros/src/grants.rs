//! What a filter asks the operator for, as JSON: `grants(clusters = ["authz"], reply = true)`.

use proc_macro2::TokenStream;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, Lit, Meta, Result, Token};

use crate::schema::json;

/// The member of the module's description, or nothing.
pub(crate) fn read(arguments: TokenStream) -> Result<String> {
    let mut members = Vec::new();
    for argument in list(arguments)? {
        let Meta::List(grants) = &argument else { return Err(unknown(&argument)) };
        if !grants.path.is_ident("grants") {
            return Err(unknown(&argument));
        }
        for grant in list(grants.tokens.clone())? {
            let Meta::NameValue(grant) = &grant else { return Err(unknown(&grant)) };
            let name = grant.path.require_ident()?.to_string();
            members.push(format!("{}:{}", json(&name), value(&grant.value)?));
        }
    }
    Ok(if members.is_empty() { String::new() } else { format!(",\"grants\":{{{}}}", members.join(",")) })
}

fn list(tokens: TokenStream) -> Result<Punctuated<Meta, Token![,]>> {
    Punctuated::parse_terminated.parse2(tokens)
}

fn unknown(argument: &Meta) -> Error {
    Error::new(argument.span(), "write `grants(NAME = VALUE, ...)` here, in the words of a filter's `grants`")
}

/// Texts, truth values, and lists of them.
fn value(value: &Expr) -> Result<String> {
    if let Expr::Array(items) = value {
        let items: Vec<String> = items.elems.iter().map(self::value).collect::<Result<_>>()?;
        return Ok(format!("[{}]", items.join(",")));
    }
    if let Expr::Lit(literal) = value {
        if let Lit::Str(text) = &literal.lit {
            return Ok(json(&text.value()));
        }
        if let Lit::Bool(truth) = &literal.lit {
            return Ok(truth.value.to_string());
        }
    }
    Err(Error::new(value.span(), "a text, a truth value, or a list of them is expected here"))
}
