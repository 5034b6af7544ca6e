//! HTTP calls of a guest's own.

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
    let (cluster, vm) = host.bytes(cluster, cluster_len)?;
    let cluster = vm.callable(cluster).ok_or(Status::BadArgument)?;
    let ((headers, trailers), _) = host.two((headers, headers_len), (trailers, trailers_len))?;
    let (request, trailers) = (request(headers)?, map(trailers)?);
    let (body, vm) = host.bytes(body, body_len)?;
    let body = Bytes::copy_from_slice(body);
    let token = vm.next_token();
    let root = vm.root_mut()?;
    if root.calls.len() >= root.spec.calls {
        root.refusals.refuse(Quota::Calls);
        return Err(Status::InternalFailure.into());
    }
    let id = root.id;
    host.write_int(call, token)?;
    let vm = host.vm();
    vm.root_mut()?.calls.insert(token);
    let call = HttpCall { root: id, token, cluster, request, body, trailers, timeout };
    vm.outbox.push(Outgoing::Call(Box::new(call)));
    Ok(())
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
