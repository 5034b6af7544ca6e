//! What a guest can do to a stream as a whole: resume it, close it, answer it, act on another one.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use weir_abi::{LogLevel, Status, StreamKind, decode_pairs};

use crate::plugin::abi::headers::valid_pair;
use crate::plugin::abi::memory::Host;
use crate::plugin::abi::{Answer, Int, Len, OutInt, OutLen, OutPtr, Ptr};
use crate::plugin::stream::LocalReply;

pub fn proxy_continue_stream(host: &mut Host<'_>, stream: Int) -> Answer {
    let kind = StreamKind::try_from(stream).map_err(|_| Status::BadArgument)?;
    resume(host, kind)
}

pub fn proxy_continue_request(host: &mut Host<'_>) -> Answer {
    resume(host, StreamKind::HttpRequest)
}

pub fn proxy_continue_response(host: &mut Host<'_>) -> Answer {
    resume(host, StreamKind::HttpResponse)
}

fn resume(host: &mut Host<'_>, kind: StreamKind) -> Answer {
    let context = host.vm().stream_mut()?;
    match kind {
        StreamKind::HttpRequest | StreamKind::Downstream => context.intents.resume_received = true,
        StreamKind::HttpResponse | StreamKind::Upstream => context.intents.resume_answered = true,
    }
    context.wake();
    Ok(())
}

pub fn proxy_close_stream(host: &mut Host<'_>, stream: Int) -> Answer {
    let kind = StreamKind::try_from(stream).map_err(|_| Status::BadArgument)?;
    let context = host.vm().stream_mut()?;
    match kind {
        StreamKind::HttpRequest | StreamKind::HttpResponse | StreamKind::Downstream => {
            context.intents.close = true;
        }
        StreamKind::Upstream => context.intents.close_upstream = true,
    }
    context.wake();
    Ok(())
}

/// In 0.2 the route is chosen again whenever a filter has edited what it was chosen by; this asks for it.
pub fn proxy_clear_route_cache(host: &mut Host<'_>) -> Answer {
    host.vm().stream_mut()?.stream.borrow_mut().reroute = true;
    Ok(())
}

/// The headers of a reply.
const MOST_HEADERS: usize = 1024;

/// What is kept of the details of a reply, in bytes: they are words for the log.
const MOST_DETAILS: usize = 4096;

#[expect(clippy::too_many_arguments, reason = "the ABI's signature")]
pub fn proxy_send_local_response(
    host: &mut Host<'_>,
    status: Int,
    details: Ptr,
    details_len: Len,
    body: Ptr,
    body_len: Len,
    headers: Ptr,
    headers_len: Len,
    grpc_status: Int,
) -> Answer {
    let wanted = u16::try_from(status).ok().filter(|status| (200..600).contains(status));
    let wanted = wanted.and_then(|status| StatusCode::from_u16(status).ok());
    host.two((body, body_len), (headers, headers_len))?;
    let (details, vm) = host.bytes(details, details_len)?;
    let context = vm.streams.get(&vm.effective).ok_or(Status::BadArgument)?;
    // A connection has no reply; Envoy says nothing to that either. And of several the first one counts.
    if !context.stream.borrow().is_http() || context.intents.reply.is_some() {
        return Ok(());
    }
    let details = String::from_utf8_lossy(details.get(..MOST_DETAILS).unwrap_or(details)).as_ref().into();
    let ((body, headers), vm) = host.two((body, body_len), (headers, headers_len))?;
    let body = Bytes::copy_from_slice(body);
    // A reply is always taken, as in Envoy: SDKs panic when it is not. What cannot be sent of it is left out.
    let headers: Option<Vec<Result<_, Status>>> =
        decode_pairs(headers).ok().map(|pairs| pairs.map(|(name, value)| valid_pair(name, value)).collect());
    let sound = wanted.is_some() && headers.as_ref().is_some_and(|headers| headers.iter().all(Result::is_ok));
    let headers: Vec<(HeaderName, HeaderValue)> =
        headers.into_iter().flatten().flatten().take(MOST_HEADERS).collect();
    if !sound {
        vm.log(LogLevel::Warn, &format!("a reply (status {status}) cannot be sent as it is, and is mended"));
    }
    let status = wanted.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let grpc_status = (grpc_status != u32::MAX).then_some(grpc_status);
    let context = vm.stream_mut()?;
    context.intents.reply = Some(LocalReply { status, headers, body, grpc_status, details });
    context.wake();
    Ok(())
}

pub fn proxy_set_effective_context(host: &mut Host<'_>, context: Int) -> Answer {
    let vm = host.vm();
    if !vm.streams.contains_key(&context) && vm.roots.iter().all(|root| root.id != context) {
        return Err(Status::BadArgument.into());
    }
    vm.effective = context;
    Ok(())
}

pub fn proxy_done(_: &mut Host<'_>) -> Answer {
    Err(Status::Unimplemented.into())
}

pub fn proxy_get_status(_: &mut Host<'_>, _code: OutInt, _message: OutPtr, _message_len: OutLen) -> Answer {
    Err(Status::Unimplemented.into())
}
