//! The methods about messages: which there are, and which of them are `async fn`.

use quote::quote_spanned;
use syn::spanned::Spanned;
use syn::{ImplItem, ImplItemFn, ItemImpl, ReturnType, parse_quote_spanned};

/// In the order of the bits of `weir_sdk`'s `filter::method`.
const METHODS: [&str; 8] = [
    "on_request",
    "on_request_headers",
    "on_request_body",
    "on_request_trailers",
    "on_response",
    "on_response_headers",
    "on_response_body",
    "on_response_trailers",
];

/// What a filter has of [`METHODS`].
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Methods {
    all: u32,
    awaiting: u32,
}

impl Methods {
    pub(crate) fn bits(self) -> u32 {
        self.all
    }

    pub(crate) fn awaiting_bits(self) -> u32 {
        self.awaiting
    }

    pub(crate) fn has(self, name: &str) -> bool {
        self.all & bit(name) != 0
    }

    pub(crate) fn awaits(self, name: &str) -> bool {
        self.awaiting & bit(name) != 0
    }
}

fn bit(name: &str) -> u32 {
    METHODS.iter().position(|method| *method == name).map_or(0, |place| 1 << place)
}

/// Finds them, and makes of each `fn` what the trait asks for: a future, which is ready.
pub(crate) fn of(item: &mut ItemImpl) -> syn::Result<Methods> {
    let mut methods = Methods::default();
    for item in &mut item.items {
        let ImplItem::Fn(method) = item else { continue };
        let bit = bit(&method.sig.ident.to_string());
        methods.all |= bit;
        if method.sig.asyncness.is_some() {
            if bit == 0 {
                let message = "this method cannot await anything; write `fn`, and `weir_sdk::spawn` what is to be awaited";
                return Err(syn::Error::new_spanned(&method.sig, message));
            }
            methods.awaiting |= bit;
        } else if bit != 0 {
            make_future(method);
        }
    }
    for (whole, parts) in [
        ("on_request", ["on_request_headers", "on_request_body"]),
        ("on_response", ["on_response_headers", "on_response_body"]),
    ] {
        for part in parts {
            if methods.has(whole) && methods.has(part) {
                let message = format!("`{whole}` is in the place of `{part}`; a filter has one of them");
                return Err(syn::Error::new_spanned(&item.self_ty, message));
            }
        }
    }
    Ok(methods)
}

/// `fn(..) -> T { .. }` becomes `fn(..) -> impl Future<Output = T> { ready(..) }`. The body is in a closure, so that
/// `?` and `return` mean what they did, and `.await` is refused by the compiler.
fn make_future(method: &mut ImplItemFn) {
    let span = method.sig.output.span();
    let output = match &method.sig.output {
        ReturnType::Default => quote_spanned! { span=> () },
        ReturnType::Type(_, output) => quote_spanned! { span=> #output },
    };
    let (block, mixed) = (&method.block, method.block.span().resolved_at(proc_macro2::Span::mixed_site()));
    let ready = parse_quote_spanned! { mixed=> {
        #[allow(clippy::redundant_closure_call, reason = "`return` and `?` end the closure")]
        let ready = (move || -> #output #block)();
        ::core::future::ready(ready)
    } };
    method.sig.output = parse_quote_spanned! { span=> -> impl ::core::future::Future<Output = #output> };
    method.block = ready;
}
