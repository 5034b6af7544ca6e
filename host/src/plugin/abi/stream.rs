//! What a guest can do to a stream as a whole: resume it, close it, answer it, act on another one.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use weir_abi::{LogLevel, Status, StreamKind, decode_pairs};

use crate::plugin::abi::headers::valid_pair;
use crate::plugin::abi::memory::Host;
use crate::plugin::abi::{Answer, Int, Len, OutInt, OutLen, OutPtr, Ptr};
use crate::plugin::grants::Right;
use crate::plugin::stream::{LocalReply, Reroute};
use crate::plugin::vm::{Intents, Outgoing, Vm};

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

/// A plugin as a whole has no stream to be resumed or answered. As in Envoy it is not told so: SDKs would panic.
fn of_no_stream(vm: &Vm) -> Answer {
    Ok(vm.root().map(drop)?)
}

/// A kind that the stream is not of is passed over, as in Envoy.
fn resume(host: &mut Host<'_>, kind: StreamKind) -> Answer {
    let vm = host.vm();
    let Ok(context) = vm.stream_mut() else { return of_no_stream(vm) };
    let http = context.stream.borrow().is_http();
    match kind {
        StreamKind::HttpRequest if http => context.intents.resume_received = true,
        StreamKind::HttpResponse if http => context.intents.resume_answered = true,
        StreamKind::Downstream if !http => context.intents.resume_received = true,
        StreamKind::Upstream if !http => context.intents.resume_answered = true,
        StreamKind::HttpRequest
        | StreamKind::HttpResponse
        | StreamKind::Downstream
        | StreamKind::Upstream => {
            return Ok(());
        }
    }
    context.wake();
    Ok(())
}

pub fn proxy_close_stream(host: &mut Host<'_>, stream: Int) -> Answer {
    let kind = StreamKind::try_from(stream).map_err(|_| Status::BadArgument)?;
    let vm = host.vm();
    vm.stream()?;
    // SDKs panic when it is not OK.
    if !vm.may(Right::Reply, "an end to its stream") {
        return Ok(meet_on_failure(vm)?);
    }
    let context = vm.stream_mut()?;
    let http = context.stream.borrow().is_http();
    match kind {
        StreamKind::HttpRequest | StreamKind::HttpResponse if http => context.intents.close = true,
        StreamKind::Downstream if !http => context.intents.close = true,
        StreamKind::Upstream if !http => context.intents.close_upstream = true,
        StreamKind::HttpRequest
        | StreamKind::HttpResponse
        | StreamKind::Downstream
        | StreamKind::Upstream => {
            return Ok(());
        }
    }
    context.wake();
    Ok(())
}

/// A filter would end its stream, and may not. It has no more to say of it, and what it holds would wait in vain: the
/// stream meets `on_failure` at once.
fn meet_on_failure(vm: &mut Vm) -> Result<(), Status> {
    let goes_on = vm.root()?.spec.fail_open;
    let context = vm.stream_mut()?;
    let http = context.stream.borrow().is_http();
    let Intents { resume_received, resume_answered, close, reply, .. } = &mut context.intents;
    if goes_on {
        (*resume_received, *resume_answered) = (true, true);
    } else if http {
        reply.get_or_insert_with(|| {
            Box::new(LocalReply {
                status: StatusCode::SERVICE_UNAVAILABLE,
                headers: Vec::new(),
                body: Bytes::new(),
                grpc_status: None,
                details: "filter_reply_denied".into(),
            })
        });
    } else {
        *close = true;
    }
    context.wake();
    Ok(())
}

/// In 0.2 the route is chosen again whenever a filter has edited what it was chosen by; this asks for it.
pub fn proxy_clear_route_cache(host: &mut Host<'_>) -> Answer {
    let vm = host.vm();
    let context = vm.stream()?;
    // SDKs panic when it is not OK.
    if vm.may(Right::Route, "another route") {
        context.stream.borrow_mut().reroute = Reroute::Anyhow;
    }
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
    let Some(context) = vm.streams.get(&vm.effective) else { return of_no_stream(vm) };
    // A connection has no reply; Envoy says nothing to that either. And of several the first one counts.
    if !context.stream.borrow().is_http() || context.intents.reply.is_some() {
        return Ok(());
    }
    if !vm.may(Right::Reply, "a reply of its own") {
        return Ok(meet_on_failure(vm)?);
    }
    let details = String::from_utf8_lossy(details.get(..MOST_DETAILS).unwrap_or(details)).as_ref().into();
    let ((body, headers), vm) = host.two((body, body_len), (headers, headers_len))?;
    // As below: what there is no room for is left out.
    let body = if vm.may_hold(body.len(), body.len()) { Bytes::copy_from_slice(body) } else { Bytes::new() };
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
    context.intents.reply = Some(Box::new(LocalReply { status, headers, body, grpc_status, details }));
    context.wake();
    Ok(())
}

pub fn proxy_set_effective_context(host: &mut Host<'_>, context: Int) -> Answer {
    let vm = host.vm();
    // 0 is no context at all, which is a state to be in, too.
    let known = context == 0
        || vm.streams.contains_key(&context)
        || vm.roots.iter().any(|root| root.id == context && !root.deleted);
    if !known {
        return Err(Status::BadArgument.into());
    }
    vm.effective = context;
    Ok(())
}

/// Ends a plugin that held its end back with `proxy_on_done`.
pub fn proxy_done(host: &mut Host<'_>) -> Answer {
    let vm = host.vm();
    let root = vm.root_mut().map_err(|_| Status::NotFound)?;
    if !std::mem::take(&mut root.pending) {
        return Err(Status::NotFound.into());
    }
    let root = root.id;
    vm.outbox.push(Outgoing::Done { root });
    Ok(())
}

pub fn proxy_get_status(host: &mut Host<'_>, code: OutInt, message: OutPtr, message_len: OutLen) -> Answer {
    let (status, text) = match host.vm().root() {
        Ok(root) => root.status.clone(),
        Err(_) => (0, String::new()),
    };
    host.write_int(code, status)?;
    host.give(text.as_bytes(), message, message_len)
}
