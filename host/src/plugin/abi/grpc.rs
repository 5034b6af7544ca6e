//! gRPC calls and streams of a guest's own, over a cluster that speaks HTTP/2.
//!
//! What they bring is told to the root context, one callback for each thing that comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use weir_abi::{Status, decode_pairs, protobuf};

use crate::http::message::{Request, Scheme, Version};
use crate::plugin::abi::headers::{valid_pair, valid_path};
use crate::plugin::abi::memory::Host;
use crate::plugin::abi::{Answer, Int, Len, OutInt, Ptr};
use crate::plugin::quotas::Quota;
use crate::plugin::vm::{Grpc, GrpcCall, GrpcOpen, Outgoing, Vm};

/// gRPC calls and streams that one plugin may have under way on one worker.
const MAX_CALLS: usize = 1024;

/// Bytes of messages that may wait to be sent on one call, and on all calls of one plugin on one worker.
const MAX_WAITING: usize = 4 << 20;
const MAX_WAITING_OF_ALL: usize = 16 << 20;

#[expect(clippy::too_many_arguments, reason = "the ABI's signature")]
pub fn proxy_grpc_call(
    host: &mut Host<'_>,
    service: Ptr,
    service_len: Len,
    name: Ptr,
    name_len: Len,
    method: Ptr,
    method_len: Len,
    metadata: Ptr,
    metadata_len: Len,
    message: Ptr,
    message_len: Len,
    timeout: Int,
    call: OutInt,
) -> Answer {
    check_room(host)?;
    let timeout = i32::try_from(timeout).map_err(|_| Status::BadArgument)?;
    let timeout = (timeout > 0).then(|| Duration::from_millis(timeout.unsigned_abs().into()));
    let (cluster, mut request) = request(
        host,
        (service, service_len),
        (name, name_len),
        (method, method_len),
        (metadata, metadata_len),
    )?;
    if let Some(timeout) = timeout {
        let value = HeaderValue::try_from(format!("{}m", timeout.as_millis()));
        request.headers.insert("grpc-timeout", value.map_err(|_| Status::InternalFailure)?);
    }
    let (message, _) = host.bytes(message, message_len)?;
    if message.len() > MAX_WAITING {
        return Err(Status::BadArgument.into());
    }
    let message = Some(Bytes::copy_from_slice(message));
    open(host, call, cluster, request, message, timeout)
}

#[expect(clippy::too_many_arguments, reason = "the ABI's signature")]
pub fn proxy_grpc_stream(
    host: &mut Host<'_>,
    service: Ptr,
    service_len: Len,
    name: Ptr,
    name_len: Len,
    method: Ptr,
    method_len: Len,
    metadata: Ptr,
    metadata_len: Len,
    call: OutInt,
) -> Answer {
    check_room(host)?;
    let (cluster, request) = request(
        host,
        (service, service_len),
        (name, name_len),
        (method, method_len),
        (metadata, metadata_len),
    )?;
    open(host, call, cluster, request, None, None)
}

/// Whether there may be one more. Whoever has too many of them tries again and again, so nothing that is asked for is read before.
fn check_room(host: &mut Host<'_>) -> Answer {
    match host.vm().root_mut() {
        Ok(root) if root.grpc.calls.len() >= MAX_CALLS.min(root.spec.calls) => {
            root.refusals.refuse(Quota::Calls);
            Err(Status::InternalFailure.into())
        }
        // Without a plugin there are no calls; that is told when the rest is right.
        _ => Ok(()),
    }
}

/// Where a call goes, and its request.
fn request(
    host: &mut Host<'_>,
    service: (u32, u32),
    name: (u32, u32),
    method: (u32, u32),
    metadata: (u32, u32),
) -> Result<(Box<str>, Request), Status> {
    let ((service, metadata), vm) = host.two(service, metadata)?;
    let cluster = cluster(service, vm).ok_or(Status::ParseFailure)?;
    // What is no header map is none, as in Envoy.
    let mut headers = HeaderMap::new();
    for (name, value) in decode_pairs(metadata).into_iter().flatten() {
        let (name, value) = valid_pair(name, value)?;
        headers.append(name, value);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let ((name, method), _) = host.two(name, method)?;
    let path = valid_path(&[b"/", name, b"/", method].concat())?;
    let authority = HeaderValue::try_from(&*cluster).map_err(|_| Status::BadArgument)?;
    let (method, scheme, version) = (Method::POST, Scheme::Http, Version::Http2);
    Ok((cluster, Request { method, scheme, authority, path, version, headers }))
}

/// The cluster that a guest names: by its name, or, as filters for Envoy do, by a message
/// `envoy.config.core.v3.GrpcService` whose `envoy_grpc` (1) has a `cluster_name` (1).
fn cluster(service: &[u8], vm: &Vm) -> Option<Box<str>> {
    vm.callable(service).or_else(|| vm.callable(protobuf::bytes(protobuf::bytes(service, 1)?, 1)?))
}

impl Grpc {
    /// Whether there is room for a message; then it is taken to wait. What waits is counted when it may be too much, and not for
    /// each of a thousand calls: messages that have been sent since are taken to wait until then.
    fn has_room_for(&mut self, len: usize, weight: usize) -> bool {
        if self.waiting.saturating_add(len) > MAX_WAITING_OF_ALL {
            let waiting = |call: &GrpcCall| call.waiting.load(Ordering::Relaxed);
            self.waiting = self.calls.values().map(waiting).sum();
        }
        let has_room = self.waiting < MAX_WAITING_OF_ALL && len <= MAX_WAITING_OF_ALL - self.waiting;
        if has_room {
            self.waiting += weight;
        }
        has_room
    }
}

fn open(
    host: &mut Host<'_>,
    call: OutInt,
    cluster: Box<str>,
    request: Request,
    message: Option<Bytes>,
    timeout: Option<Duration>,
) -> Answer {
    let root = host.vm().root_mut()?;
    let id = root.id;
    let (len, weight) = message.as_ref().map_or((0, 0), |message| (message.len(), GrpcOpen::weight(message)));
    if !root.grpc.has_room_for(len, weight) {
        root.refusals.refuse(Quota::Calls);
        return Err(Status::InternalFailure.into());
    }
    let token = host.vm().next_token();
    // No call is made for a guest that will not learn its token.
    host.write_int(call, token)?;
    let unary = message.is_some();
    let waiting = Arc::new(AtomicUsize::new(weight));
    let vm = host.vm();
    let own = GrpcCall { unary, closed: unary, waiting: Arc::clone(&waiting) };
    vm.root_mut()?.grpc.calls.insert(token, own);
    let open = GrpcOpen { root: id, token, cluster, request, message, timeout, waiting };
    vm.outbox.push(Outgoing::GrpcOpen(Box::new(open)));
    Ok(())
}

pub fn proxy_grpc_send(host: &mut Host<'_>, token: Int, message: Ptr, message_len: Len, end: Int) -> Answer {
    let (message, vm) = host.bytes(message, message_len)?;
    let grpc = &mut vm.root_mut()?.grpc;
    let call = grpc.calls.get(&token).ok_or(Status::NotFound)?;
    if call.unary {
        return Err(Status::BadArgument.into());
    }
    if call.closed {
        // As in Envoy: it goes nowhere, and the guest learns of the end in its time.
        return Ok(());
    }
    let room = MAX_WAITING.saturating_sub(call.waiting.load(Ordering::Relaxed));
    let weight = GrpcOpen::weight(message);
    if room == 0 || message.len() > room || !grpc.has_room_for(message.len(), weight) {
        return Err(Status::InternalFailure.into());
    }
    let message = Bytes::copy_from_slice(message);
    let call = grpc.calls.get_mut(&token).ok_or(Status::NotFound)?;
    call.waiting.fetch_add(weight, Ordering::Relaxed);
    call.closed = end != 0;
    vm.outbox.push(Outgoing::GrpcSend { token, message: Some(message), end: end != 0 });
    Ok(())
}

pub fn proxy_grpc_cancel(host: &mut Host<'_>, token: Int) -> Answer {
    let vm = host.vm();
    vm.root_mut()?.grpc.calls.remove(&token).ok_or(Status::NotFound)?;
    // One that was begun in the same callback never begins: calls that are given up at once are not to add up.
    let begun = |told: &Outgoing| matches!(told, Outgoing::GrpcOpen(open) if open.token == token);
    if vm.outbox.iter().any(begun) {
        let sent = |told: &Outgoing| matches!(told, Outgoing::GrpcSend { token: of, .. } if *of == token);
        vm.outbox.retain(|told| !begun(told) && !sent(told));
    } else {
        vm.outbox.push(Outgoing::GrpcCancel { token });
    }
    Ok(())
}

/// Ends the guest's half of a stream. A unary call has none of its own: it is given up.
pub fn proxy_grpc_close(host: &mut Host<'_>, token: Int) -> Answer {
    let vm = host.vm();
    let call = vm.root_mut()?.grpc.calls.get_mut(&token).ok_or(Status::NotFound)?;
    if call.unary {
        return proxy_grpc_cancel(host, token);
    }
    if !std::mem::replace(&mut call.closed, true) {
        vm.outbox.push(Outgoing::GrpcSend { token, message: None, end: true });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls on which as much waits as may on each, as long as there is room.
    fn filled() -> Grpc {
        let mut grpc = Grpc::default();
        for token in 1.. {
            if !grpc.has_room_for(MAX_WAITING, MAX_WAITING) {
                break;
            }
            let waiting = Arc::new(AtomicUsize::new(MAX_WAITING));
            grpc.calls.insert(token, GrpcCall { unary: false, closed: false, waiting });
        }
        grpc
    }

    #[test]
    fn as_many_messages_wait_on_all_calls_together_as_there_is_room_for_and_no_byte_more() {
        let mut grpc = filled();
        assert_eq!(grpc.calls.len(), MAX_WAITING_OF_ALL / MAX_WAITING);
        assert!(!grpc.has_room_for(1, 1));
        assert!(!grpc.has_room_for(usize::MAX, usize::MAX), "a sum that would wrap around is too much");
        assert_eq!(grpc.waiting, MAX_WAITING_OF_ALL, "what is refused does not wait");
    }

    #[test]
    fn what_was_sent_is_taken_to_wait_until_room_is_short_and_then_it_is_counted_anew() {
        let mut grpc = filled();
        let first = grpc.calls.first_entry().expect("a call").remove();
        grpc.calls.values().next().expect("a call").waiting.fetch_sub(10, Ordering::Relaxed);
        assert!(
            first.waiting.load(Ordering::Relaxed) == MAX_WAITING,
            "it is gone with all that waited on it"
        );
        assert_eq!(grpc.waiting, MAX_WAITING_OF_ALL, "nobody has counted");
        assert!(!grpc.has_room_for(MAX_WAITING + 11, 1));
        assert_eq!(
            grpc.waiting,
            MAX_WAITING_OF_ALL - MAX_WAITING - 10,
            "all that still waits, and nothing else"
        );
        assert!(grpc.has_room_for(MAX_WAITING + 10, MAX_WAITING + 10));
        first.waiting.fetch_add(10, Ordering::Relaxed);
        grpc.calls.insert(0, first);
        assert!(!grpc.has_room_for(1, 1));
    }

    #[test]
    fn while_there_is_room_in_any_case_nothing_is_counted() {
        let mut grpc = Grpc::default();
        assert!(grpc.has_room_for(5, 7));
        let waiting = Arc::new(AtomicUsize::new(0));
        grpc.calls.insert(1, GrpcCall { unary: true, closed: true, waiting });
        assert!(grpc.has_room_for(5, 7));
        assert_eq!(grpc.waiting, 14, "by their weight, though nothing waits any more");
    }
}
