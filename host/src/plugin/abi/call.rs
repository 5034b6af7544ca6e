//! HTTP calls of a guest's own.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use weir_abi::{Status, decode_pairs};

use crate::http::message::{Request, Scheme, Version};
use crate::plugin::abi::headers::{valid_pair, valid_path, valid_value};
use crate::plugin::abi::memory::Host;
use crate::plugin::abi::{Answer, Int, Len, OutInt, Ptr};
use crate::plugin::quotas::Quota;
use crate::plugin::vm::{HttpCall, Outgoing};

#[expect(clippy::too_many_arguments, reason = "the ABI's signature")]
pub fn proxy_http_call(
    host: &mut Host<'_>,
    cluster: Ptr,
    cluster_len: Len,
    headers: Ptr,
    headers_len: Len,
    body: Ptr,
    body_len: Len,
    trailers: Ptr,
    trailers_len: Len,
    timeout: Int,
    call: OutInt,
) -> Answer {
    let timeout = match i32::try_from(timeout) {
        Ok(0) => None,
        Ok(millis) => Some(Duration::from_millis(millis.unsigned_abs().into())),
        Err(_) => return Err(Status::BadArgument.into()),
    };
    // Whoever has too many calls tries again and again: nothing that is asked for is read before.
    if let Ok(root) = host.vm().root_mut()
        && root.calls.held.len() >= root.spec.calls
    {
        root.refusals.refuse(Quota::Calls);
        return Err(Status::InternalFailure.into());
    }
    let (cluster, vm) = host.bytes(cluster, cluster_len)?;
    let cluster = vm.callable(cluster).ok_or(Status::BadArgument)?;
    let ((headers, trailers), _) = host.two((headers, headers_len), (trailers, trailers_len))?;
    let (request, trailers) = (request(headers)?, map(trailers)?);
    let (body, vm) = host.bytes(body, body_len)?;
    let bytes = [headers_len, body_len, trailers_len].map(|len| len as usize).iter().sum();
    let root = vm.root_mut()?;
    if !root.calls.has_room_for(bytes) {
        root.refusals.refuse(Quota::Calls);
        return Err(Status::InternalFailure.into());
    }
    let body = Bytes::copy_from_slice(body);
    let token = vm.next_token();
    // No call is made for a guest that will not learn its token.
    host.write_int(call, token)?;
    let vm = host.vm();
    let root = vm.root_mut()?;
    root.calls.begin(token, bytes);
    let call = HttpCall { root: root.id, token, cluster, request, body, trailers, timeout };
    vm.outbox.push(Outgoing::Call(Box::new(call)));
    Ok(())
}

/// The HTTP calls of a plugin that are under way.
#[derive(Debug, Default, Clone)]
pub struct Calls {
    /// What each holds of the host's memory, by token.
    held: BTreeMap<u32, usize>,
    bytes: usize,
}

/// Bytes of headers, bodies and trailers of the calls that one plugin may have under way on one worker.
const MOST_BYTES: usize = 16 << 20;

impl Calls {
    fn has_room_for(&self, bytes: usize) -> bool {
        bytes <= MOST_BYTES.saturating_sub(self.bytes)
    }

    fn begin(&mut self, token: u32, bytes: usize) {
        self.held.insert(token, bytes);
        self.bytes += bytes;
    }

    /// A call has ended, whatever came of it.
    pub fn end(&mut self, token: u32) {
        self.bytes -= self.held.remove(&token).unwrap_or(0);
    }
}

/// The request: `:method`, `:path` and `:authority` are mandatory.
fn request(pairs: &[u8]) -> Result<Request, Status> {
    let (mut method, mut path, mut authority) = (None, None, None);
    let mut scheme = Scheme::Http;
    let mut headers = HeaderMap::new();
    for (name, value) in decode_pairs(pairs).map_err(|_| Status::BadArgument)? {
        match name {
            b":method" => method = Some(Method::from_bytes(value).map_err(|_| Status::BadArgument)?),
            b":path" => path = Some(valid_path(value)?),
            b":authority" => authority = Some(valid_value(value)?),
            b":scheme" if value.eq_ignore_ascii_case(b"https") => scheme = Scheme::Https,
            b":scheme" => {}
            name => {
                let (name, value) = valid_pair(name, value)?;
                headers.append(name, value);
            }
        }
    }
    let authority = authority.filter(|authority: &HeaderValue| !authority.is_empty());
    match (method, path, authority) {
        (Some(method), Some(path), Some(authority)) => {
            Ok(Request { method, scheme, authority, path, version: Version::Http11, headers })
        }
        _ => Err(Status::BadArgument),
    }
}

fn map(pairs: &[u8]) -> Result<HeaderMap, Status> {
    let mut map = HeaderMap::new();
    for (name, value) in decode_pairs(pairs).map_err(|_| Status::BadArgument)? {
        let (name, value) = valid_pair(name, value)?;
        map.append(name, value);
    }
    Ok(map)
}
