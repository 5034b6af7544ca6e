//! Header maps.

use std::fmt;

use weir_abi::{MapKind, decode_pairs};

use crate::error::{Explain, Result};
use crate::raw;

/// All headers of a message at one moment, pseudo-headers first, repeated ones each for itself. Reading it costs
/// one call of the host, however many headers are looked at.
/// A header that is repeated has no one value, and who decides by it must say what that means:
///
/// ```
/// use weir_sdk::prelude::*;
///
/// /// The tenant, if the request names one and no second one.
/// fn tenant(request: &Request) -> Result<Option<String>> {
///     let headers = request.headers()?;
///     let only = headers.get_only("x-tenant").and_then(|value| str::from_utf8(value).ok());
///     Ok(only.map(str::to_owned))
/// }
///
/// /// Whether one of its `accept` headers has this media type, in any place of a list.
/// fn accepts(request: &Request, wanted: &str) -> Result<bool> {
///     let headers = request.headers()?;
///     let texts = headers.get_all("accept").filter_map(|value| str::from_utf8(value).ok());
///     let mut types = texts.flat_map(|list| list.split(',')).filter_map(|item| item.split(';').next());
///     Ok(types.any(|one| one.trim().eq_ignore_ascii_case(wanted)))
/// }
///
/// /// Takes out whatever a client must not set.
/// fn clean(request: &mut Request) -> Result<()> {
///     let internal: Vec<String> = request
///         .headers()?
///         .iter()
///         .filter(|(name, _)| name.starts_with("x-internal-"))
///         .map(|(name, _)| name.to_owned())
///         .collect();
///     internal.iter().try_for_each(|name| request.remove_header(name))
/// }
/// ```
#[derive(Clone)]
pub struct Headers {
    bytes: Vec<u8>,
}

impl Headers {
    pub(crate) fn read(map: MapKind) -> Result<Self> {
        let bytes = raw::pairs(map).explain(|| format!("reading {map:?}"))?;
        // What the host serialised is well-formed; if it were not, the map would count as empty everywhere.
        Ok(Self { bytes })
    }

    /// The headers in order; names are in lower case.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let pairs = decode_pairs(&self.bytes).ok().into_iter().flatten();
        pairs.filter_map(|(name, value)| Some((str::from_utf8(name).ok()?, value)))
    }

    /// All values of a header.
    pub fn get_all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The value of a header that is there exactly once. A header that is repeated has no one value; what
    /// decides by it must look at [`Headers::get_all`].
    #[must_use]
    pub fn get_only(&self, name: &str) -> Option<&[u8]> {
        let mut values = self.get_all(name);
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))))
            .finish()
    }
}

/// The trailers of a message.
/// ```
/// use weir_sdk::prelude::*;
///
/// struct Failures;
///
/// #[weir_sdk::http_filter]
/// impl HttpFilter for Failures {
///     fn new(_: ()) -> Result<Self> {
///         Ok(Self)
///     }
///
///     /// gRPC tells in the trailers how a call has ended.
///     fn on_response_trailers(&self, trailers: &mut Trailers, _: &mut ()) -> Result<Action> {
///         let status = trailers.header("grpc-status")?.unwrap_or_default();
///         if status != "0" {
///             weir_sdk::warn!(status = status; "a call failed");
///             trailers.remove_header("grpc-message")?;
///         }
///         Ok(Action::Continue)
///     }
/// }
/// # fn main() {}
/// ```
#[derive(Debug)]
pub struct Trailers {
    map: MapKind,
}

impl Trailers {
    pub(crate) fn new(map: MapKind) -> Self {
        Self { map }
    }
}

/// Gives a type that stands for a message the functions on its headers.
macro_rules! header_functions {
    ($name:ident) => {
        impl $name {
            /// The first value of a header, as text; bytes that are not UTF-8 are replaced. `None` when it is
            /// not there.
            ///
            /// A header may be repeated, and then this is one of several values: where it matters (who may do
            /// what), use [`Self::headers`] and its `get_all`.
            ///
            /// # Errors
            /// When the headers cannot be read in this phase.
            pub fn header(&self, name: &str) -> $crate::Result<Option<String>> {
                let value =
                    $crate::raw::header(self.map(), name).explain(|| format!("reading header `{name}`"))?;
                Ok(value.map(|value| match String::from_utf8(value) {
                    Ok(text) => text,
                    Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
                }))
            }

            /// All headers.
            ///
            /// # Errors
            /// When they cannot be read in this phase.
            pub fn headers(&self) -> $crate::Result<Headers> {
                Headers::read(self.map())
            }

            /// Sets a header to one value, whatever it was.
            ///
            /// # Errors
            /// When name or value cannot go on the wire, or not in this phase.
            pub fn set_header(&mut self, name: &str, value: impl AsRef<[u8]>) -> $crate::Result<()> {
                $crate::raw::set_header(self.map(), name, value.as_ref())
                    .explain(|| format!("setting header `{name}`"))
            }

            /// Adds a value to those that a header has.
            ///
            /// # Errors
            /// When name or value cannot go on the wire, or not in this phase.
            pub fn add_header(&mut self, name: &str, value: impl AsRef<[u8]>) -> $crate::Result<()> {
                $crate::raw::add_header(self.map(), name, value.as_ref())
                    .explain(|| format!("adding header `{name}`"))
            }

            /// Removes a header with all its values. One that is not there is fine.
            ///
            /// # Errors
            /// When it is a pseudo-header, or not in this phase.
            pub fn remove_header(&mut self, name: &str) -> $crate::Result<()> {
                $crate::raw::remove_header(self.map(), name).explain(|| format!("removing header `{name}`"))
            }
        }
    };
}

pub(crate) use header_functions;

impl Trailers {
    fn map(&self) -> MapKind {
        self.map
    }
}

header_functions!(Trailers);
