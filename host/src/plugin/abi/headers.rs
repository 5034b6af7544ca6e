//! Header maps: of requests and responses, their trailers, and the answers of calls.
//!
//! Pseudo-headers come first. `host` is another word for `:authority`, as in Envoy. A map is there in its
//! phase, and as long as the filter holds the message; outside of that a read or write is a bad argument.

mod weight;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use smallvec::SmallVec;
use weir_abi::{MapKind, Status, Version, decode_pairs, encode_pairs, encoded_pairs_len};

use crate::http::message::{Request, Response, Scheme};
use crate::plugin::abi::headers::weight::{MOST_BYTES, add, carriage, replace};
use crate::plugin::abi::memory::Host;
use crate::plugin::abi::{Answer, Int, Len, OutInt, OutLen, OutPtr, Ptr};
use crate::plugin::grants::Right;
use crate::plugin::stream::{Reroute, Stream};
use crate::plugin::vm::{CallAnswer, Vm};

pub use weight::Weighed;

/// A map as a guest sees it.
pub struct View<'a> {
    pseudo: Pseudo<'a>,
    headers: &'a HeaderMap,
}

/// Where the pseudo-headers of a map are.
#[derive(Clone, Copy)]
enum Pseudo<'a> {
    Request(&'a Request),
    Status(&'a StatusCode),
    None,
}

impl<'a> Pseudo<'a> {
    fn iter(self) -> impl Iterator<Item = (&'static str, &'a [u8])> {
        let names: &[&str] = match self {
            Self::Request(_) => &[":authority", ":path", ":method", ":scheme"],
            Self::Status(_) => &[":status"],
            Self::None => &[],
        };
        names.iter().filter_map(move |name| Some((*name, self.get(name)?)))
    }

    fn get(self, key: &str) -> Option<&'a [u8]> {
        Some(match (self, key) {
            (Self::Request(request), ":authority" | "host") => request.authority.as_bytes(),
            (Self::Request(request), ":path") => request.path.as_bytes(),
            (Self::Request(request), ":method") => request.method.as_str().as_bytes(),
            (Self::Request(request), ":scheme") => request.scheme.as_str().as_bytes(),
            (Self::Status(status), ":status") => status.as_str().as_bytes(),
            _ => return None,
        })
    }
}

impl<'a> View<'a> {
    /// The map of a stream; `None` when it is not there.
    pub fn of_stream(stream: &'a Stream, kind: MapKind) -> Option<Self> {
        let headers = stream.map(kind)?;
        let pseudo = match kind {
            MapKind::HttpRequestHeaders => Pseudo::Request(stream.request.as_ref()?),
            MapKind::HttpResponseHeaders => Pseudo::Status(&stream.response.as_ref()?.status),
            MapKind::HttpRequestTrailers
            | MapKind::HttpResponseTrailers
            | MapKind::GrpcReceiveInitialMetadata
            | MapKind::GrpcReceiveTrailingMetadata
            | MapKind::HttpCallResponseHeaders
            | MapKind::HttpCallResponseTrailers => Pseudo::None,
        };
        Some(Self { pseudo, headers })
    }

    fn of_answer(answer: &'a CallAnswer, kind: MapKind) -> Self {
        if kind == MapKind::HttpCallResponseTrailers {
            return Self { pseudo: Pseudo::None, headers: &answer.trailers };
        }
        Self { pseudo: answer.status.as_ref().map_or(Pseudo::None, Pseudo::Status), headers: &answer.headers }
    }

    fn of_metadata(metadata: &'a Option<HeaderMap>) -> Result<Self, Status> {
        Ok(Self { pseudo: Pseudo::None, headers: metadata.as_ref().ok_or(Status::BadArgument)? })
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let pseudo = self.pseudo.iter().map(|(name, value)| (name.as_bytes(), value));
        pseudo.chain(self.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())))
    }

    /// The bytes of all names and values.
    pub fn content_len(&self) -> u64 {
        self.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum()
    }

    /// The first value of a key, in whatever case it is asked for.
    pub fn get(&self, key: &str) -> Option<&'a [u8]> {
        let lowered;
        let key = if key.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lowered = key.to_ascii_lowercase();
            &lowered
        } else {
            key
        };
        self.pseudo.get(key).or_else(|| first(self.headers, key).map(HeaderValue::as_bytes))
    }

    /// The serialised form.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(encoded_pairs_len(self.iter()));
        encode_pairs(|| self.iter(), &mut bytes);
        bytes
    }
}

/// To look at so many names is faster than to hash one, which first is looked for among the names that are known.
const FEW: usize = 16;

/// The first value of a name in lower case.
fn first<'a>(headers: &'a HeaderMap, key: &str) -> Option<&'a HeaderValue> {
    if headers.len() > FEW {
        return headers.get(key);
    }
    headers.iter().find(|(name, _)| name.as_str() == key).map(|(_, value)| value)
}

/// Gives `f` the map of the context that host functions act on.
fn with_map<T>(vm: &Vm, map: u32, f: impl FnOnce(View<'_>) -> Result<T, Status>) -> Result<T, Status> {
    let kind = MapKind::try_from(map).map_err(|_| Status::BadArgument)?;
    match kind {
        MapKind::HttpRequestHeaders
        | MapKind::HttpRequestTrailers
        | MapKind::HttpResponseHeaders
        | MapKind::HttpResponseTrailers => {
            let context = vm.stream()?;
            if !context.access.reads(kind) {
                return Err(Status::BadArgument);
            }
            if !context.rights.has(Right::ReadHeaders) {
                vm.may(Right::ReadHeaders, map_name(kind));
                // As if there were none of them: SDKs panic at most other answers.
                return Err(Status::NotFound);
            }
            f(View::of_stream(&context.stream.borrow(), kind).ok_or(Status::NotFound)?)
        }
        MapKind::HttpCallResponseHeaders | MapKind::HttpCallResponseTrailers => {
            let answer = vm.root()?.answer.as_ref().ok_or(Status::BadArgument)?;
            f(View::of_answer(answer, kind))
        }
        MapKind::GrpcReceiveInitialMetadata => f(View::of_metadata(&vm.root()?.grpc.initial)?),
        MapKind::GrpcReceiveTrailingMetadata => f(View::of_metadata(&vm.root()?.grpc.trailing)?),
    }
}

pub fn proxy_get_header_map_size(host: &mut Host<'_>, map: Int, size: OutInt) -> Answer {
    // As in Envoy it is the bytes of names and values, without what serialising them adds.
    let len = with_map(host.vm(), map, |view| Ok(view.content_len()))?;
    Ok(host.write_int(size, u32::try_from(len).unwrap_or(u32::MAX))?)
}

pub fn proxy_get_header_map_pairs(host: &mut Host<'_>, map: Int, data: OutPtr, data_len: OutLen) -> Answer {
    let bytes = match with_map(host.vm(), map, |view| Ok(view.encode())) {
        // As in Envoy a map that is not there is an empty one here: SDKs know no other answer.
        Err(_) if MapKind::try_from(map).is_ok() => Vec::new(),
        bytes => bytes?,
    };
    host.give(&bytes, data, data_len)
}

pub fn proxy_get_header_map_value(
    host: &mut Host<'_>,
    map: Int,
    key: Ptr,
    key_len: Len,
    data: OutPtr,
    data_len: OutLen,
) -> Answer {
    let (key, vm) = host.bytes(key, key_len)?;
    // What is no text names no header, and neither does nothing at all. Envoy answers that, too.
    let key = str::from_utf8(key).unwrap_or_default();
    // One copy into the host first: the guest's allocator runs before the value can be copied into the guest.
    let value: Result<SmallVec<[u8; 128]>, Status> =
        with_map(vm, map, |view| view.get(key).map(SmallVec::from_slice).ok_or(Status::NotFound));
    match value {
        Err(Status::NotFound) if host.vm().version == Version::V0_1_0 => host.give(&[], data, data_len),
        value => host.give(&value?, data, data_len),
    }
}

pub fn proxy_set_header_map_pairs(host: &mut Host<'_>, map: Int, data: Ptr, data_len: Len) -> Answer {
    let (bytes, vm) = host.bytes(data, data_len)?;
    let pairs = decode_pairs(bytes).map_err(|_| Status::BadArgument)?;
    edit(vm, map, Reroute::Anyhow, |target, weight| {
        let (mut headers, mut own, mut all) = (HeaderMap::new(), None, 0);
        for (name, value) in pairs {
            if name.starts_with(b":") {
                all += target.set_pseudo(name, value)?;
            } else {
                let (name, value) = valid_pair(name, value)?;
                all += add(&mut headers, &mut own, name, value)?;
            }
        }
        *target.headers() = headers;
        *weight = own;
        Ok(all)
    })
}

pub fn proxy_add_header_map_value(
    host: &mut Host<'_>,
    map: Int,
    key: Ptr,
    key_len: Len,
    value: Ptr,
    value_len: Len,
) -> Answer {
    let ((key, value), vm) = host.two((key, key_len), (value, value_len))?;
    edit(vm, map, reroute_by(key), |target, weight| {
        if target.is_pseudo(key) {
            return target.set_pseudo(key, value);
        }
        let (name, value) = valid_pair(key, value)?;
        add(target.headers(), weight, name, value)
    })
}

pub fn proxy_replace_header_map_value(
    host: &mut Host<'_>,
    map: Int,
    key: Ptr,
    key_len: Len,
    value: Ptr,
    value_len: Len,
) -> Answer {
    let ((key, value), vm) = host.two((key, key_len), (value, value_len))?;
    edit(vm, map, reroute_by(key), |target, weight| {
        if target.is_pseudo(key) {
            return target.set_pseudo(key, value);
        }
        let (name, value) = valid_pair(key, value)?;
        replace(target.headers(), weight, name, value)
    })
}

pub fn proxy_remove_header_map_value(host: &mut Host<'_>, map: Int, key: Ptr, key_len: Len) -> Answer {
    let (key, vm) = host.bytes(key, key_len)?;
    edit(vm, map, Reroute::ByHeaders, |target, weight| {
        // A message cannot be without its pseudo-headers.
        if target.is_pseudo(key) {
            return Err(Status::BadArgument);
        }
        if let Ok(name) = HeaderName::from_bytes(key) {
            target.headers().remove(name);
            *weight = None;
        }
        Ok(0)
    })
}

/// What a denial calls a map.
fn map_name(kind: MapKind) -> &'static str {
    match kind {
        MapKind::HttpRequestHeaders => "request headers",
        MapKind::HttpRequestTrailers => "request trailers",
        MapKind::HttpResponseHeaders => "response headers",
        MapKind::HttpResponseTrailers => "response trailers",
        MapKind::GrpcReceiveInitialMetadata
        | MapKind::GrpcReceiveTrailingMetadata
        | MapKind::HttpCallResponseHeaders
        | MapKind::HttpCallResponseTrailers => "the answer to its call",
    }
}

/// What an edit works on.
enum Target<'a> {
    Request(&'a mut Request),
    Response(&'a mut Response),
    Trailers(&'a mut HeaderMap),
}

impl Target<'_> {
    fn headers(&mut self) -> &mut HeaderMap {
        match self {
            Self::Request(request) => &mut request.headers,
            Self::Response(response) => &mut response.headers,
            Self::Trailers(trailers) => trailers,
        }
    }

    fn is_pseudo(&self, key: &[u8]) -> bool {
        key.starts_with(b":") || (matches!(self, Self::Request(_)) && names_host(key))
    }

    /// What is returned is its length, in bytes.
    fn set_pseudo(&mut self, key: &[u8], value: &[u8]) -> Result<usize, Status> {
        match (self, lower(key)?.as_str()) {
            (Self::Request(request), ":method") => {
                request.method = Method::from_bytes(value).map_err(|_| Status::BadArgument)?;
            }
            (Self::Request(request), ":path") => request.path = valid_path(value)?,
            (Self::Request(request), ":authority" | "host") => request.authority = valid_authority(value)?,
            (Self::Request(request), ":scheme") => {
                request.scheme = match value {
                    b"http" => Scheme::Http,
                    b"https" => Scheme::Https,
                    _ => return Err(Status::BadArgument),
                };
            }
            (Self::Response(response), ":status") => {
                let status = StatusCode::from_bytes(value).map_err(|_| Status::BadArgument)?;
                if !(200..600).contains(&status.as_u16()) {
                    return Err(Status::BadArgument);
                }
                response.status = status;
            }
            _ => return Err(Status::BadArgument),
        }
        Ok(value.len())
    }
}

fn names_host(key: &[u8]) -> bool {
    key.eq_ignore_ascii_case(b"host")
}

/// What a request's route may depend on that is edited under a key.
fn reroute_by(key: &[u8]) -> Reroute {
    if key.starts_with(b":") || names_host(key) { Reroute::Anyhow } else { Reroute::ByHeaders }
}

/// Lets `change` edit a map of the context that host functions act on; it is told what the map weighs, where that is known, and
/// says so of what it leaves. What it has added, in bytes, is billed.
fn edit(
    vm: &mut Vm,
    map: u32,
    reroute: Reroute,
    change: impl FnOnce(&mut Target<'_>, &mut Option<usize>) -> Result<usize, Status>,
) -> Answer {
    let kind = MapKind::try_from(map).map_err(|_| Status::BadArgument)?;
    let mut weight = vm.weighed.take(vm.effective, kind);
    let context = vm.stream()?;
    if !context.access.writes(kind) {
        return Err(Status::BadArgument.into());
    }
    if !context.rights.has(Right::WriteHeaders) {
        vm.may(Right::WriteHeaders, map_name(kind));
        return Err(Status::BadArgument.into());
    }
    let routes = context.rights.has(Right::Route);
    let place = 1 << context.place;
    let mut shared = context.stream.borrow_mut();
    let stream = &mut *shared;
    if matches!(kind, MapKind::HttpRequestHeaders | MapKind::HttpRequestTrailers) {
        stream.edited_received |= place;
    } else {
        stream.edited_answered |= place;
    }
    let mut target = match kind {
        MapKind::HttpRequestHeaders => {
            if routes {
                stream.reroute = stream.reroute.max(reroute);
            }
            Target::Request(stream.request.as_mut().ok_or(Status::NotFound)?)
        }
        MapKind::HttpResponseHeaders => Target::Response(stream.response.as_mut().ok_or(Status::NotFound)?),
        // Access to trailers that are not there means that they may be made.
        MapKind::HttpRequestTrailers => Target::Trailers(stream.request_trailers.get_or_insert_default()),
        MapKind::HttpResponseTrailers => Target::Trailers(stream.response_trailers.get_or_insert_default()),
        MapKind::GrpcReceiveInitialMetadata
        | MapKind::GrpcReceiveTrailingMetadata
        | MapKind::HttpCallResponseHeaders
        | MapKind::HttpCallResponseTrailers => return Err(Status::BadArgument.into()),
    };
    let changed = change(&mut target, &mut weight);
    drop(shared);
    vm.weighed.keep(vm.effective, kind, weight);
    vm.carried = vm.carried.saturating_add(carriage(changed?));
    Ok(())
}

/// A header that may go onto the wire: no pseudo-header, no control characters.
pub fn valid_pair(name: &[u8], value: &[u8]) -> Result<(HeaderName, HeaderValue), Status> {
    let name = HeaderName::from_bytes(name).map_err(|_| Status::BadArgument)?;
    Ok((name, valid_value(value)?))
}

/// A header value without control characters, and not longer than a whole map may be.
pub fn valid_value(value: &[u8]) -> Result<HeaderValue, Status> {
    if value.len() > MOST_BYTES {
        return Err(Status::BadArgument);
    }
    HeaderValue::from_bytes(value).map_err(|_| Status::BadArgument)
}

/// A request target: visible ASCII, beginning with `/` (or `*` as a whole).
pub fn valid_path(value: &[u8]) -> Result<HeaderValue, Status> {
    let target = value.starts_with(b"/") || value == b"*";
    if !target || !value.iter().all(u8::is_ascii_graphic) {
        return Err(Status::BadArgument);
    }
    valid_value(value)
}

fn valid_authority(value: &[u8]) -> Result<HeaderValue, Status> {
    http::uri::Authority::try_from(value).map_err(|_| Status::BadArgument)?;
    valid_value(value)
}

/// A key in lower case.
fn lower(key: &[u8]) -> Result<String, Status> {
    let key = str::from_utf8(key).map_err(|_| Status::BadArgument)?;
    Ok(key.to_ascii_lowercase())
}
