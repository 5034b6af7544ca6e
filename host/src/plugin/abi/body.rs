//! Buffers: bodies, TCP data, configurations, the answers of calls.

use bytes::Bytes;
use weir_abi::{BufferKind, Status};

use crate::plugin::abi::memory::Host;
use crate::plugin::abi::{Answer, Int, Len, OutInt, OutLen, OutPtr, Ptr};
use crate::plugin::grants::Right;
use crate::plugin::vm::{StreamContext, Vm};

pub fn proxy_get_buffer_bytes(
    host: &mut Host<'_>,
    buffer: Int,
    start: Int,
    max_len: Int,
    data: OutPtr,
    data_len: OutLen,
) -> Answer {
    let kind = BufferKind::try_from(buffer).map_err(|_| Status::BadArgument)?;
    let end = start.checked_add(max_len).ok_or(Status::BadArgument)?;
    // Copied once into the host: the guest's allocator runs before it can be copied into the guest.
    let bytes = with_buffer(host.vm(), kind, |bytes| {
        let end = bytes.len().min(end as usize);
        Bytes::copy_from_slice(bytes.get((start as usize).min(end)..end).unwrap_or(&[]))
    })?;
    host.give(&bytes, data, data_len)
}

/// Gives `f` a buffer. A filter's own buffers are there as long as it sees them.
fn with_buffer<T>(vm: &Vm, kind: BufferKind, f: impl FnOnce(&[u8]) -> T) -> Result<T, Status> {
    match kind {
        BufferKind::HttpRequestBody | BufferKind::DownstreamData => {
            Ok(f(seen(vm, kind)?.received.as_slice()))
        }
        BufferKind::HttpResponseBody | BufferKind::UpstreamData => Ok(f(seen(vm, kind)?.answered.as_slice())),
        BufferKind::HttpCallResponseBody => Ok(f(&vm.root()?.answer.as_ref().ok_or(Status::NotFound)?.body)),
        BufferKind::GrpcReceiveBuffer => Ok(f(vm.root()?.grpc.message.as_ref().ok_or(Status::NotFound)?)),
        // As in Envoy, a configuration can be read at any time.
        BufferKind::VmConfiguration => Ok(f(&vm.root()?.spec.vm_config)),
        BufferKind::PluginConfiguration => Ok(f(&vm.root()?.spec.config)),
        BufferKind::CallData => Err(Status::NotFound),
    }
}

/// The stream that host functions act on, when its filter sees a buffer.
fn seen(vm: &Vm, kind: BufferKind) -> Result<&StreamContext, Status> {
    let context =
        vm.stream().ok().filter(|context| context.access.has_buffer(kind)).ok_or(Status::NotFound)?;
    // Denied, it is not there either: SDKs know that answer.
    if context.rights.has(Right::ReadBody) || vm.may(Right::ReadBody, "a body") {
        return Ok(context);
    }
    Err(Status::NotFound)
}

pub fn proxy_set_buffer_bytes(
    host: &mut Host<'_>,
    buffer: Int,
    start: Int,
    len: Int,
    data: Ptr,
    data_len: Len,
) -> Answer {
    let kind = BufferKind::try_from(buffer).map_err(|_| Status::BadArgument)?;
    let (data, vm) = host.bytes(data, data_len)?;
    let context = vm.stream().map_err(|_| Status::NotFound)?;
    if !context.access.has_buffer(kind) {
        return Err(Status::NotFound.into());
    }
    if !context.rights.has(Right::WriteBody) {
        vm.may(Right::WriteBody, "a change of a body");
        return Err(Status::BadArgument.into());
    }
    let more = data.len();
    if !vm.may_hold(more, context.received.len().max(context.answered.len()) + more) {
        return Err(Status::BadArgument.into());
    }
    let context = vm.stream_mut()?;
    let end = start.checked_add(len).ok_or(Status::BadArgument)?;
    let place = 1 << context.place;
    let mut stream = context.stream.borrow_mut();
    let buffer = match kind {
        BufferKind::HttpRequestBody | BufferKind::DownstreamData => {
            stream.edited_received |= place;
            stream.changed_received = true;
            &mut context.received
        }
        BufferKind::HttpResponseBody | BufferKind::UpstreamData => {
            stream.edited_answered |= place;
            stream.changed_answered = true;
            &mut context.answered
        }
        BufferKind::HttpCallResponseBody
        | BufferKind::GrpcReceiveBuffer
        | BufferKind::VmConfiguration
        | BufferKind::PluginConfiguration
        | BufferKind::CallData => return Err(Status::BadArgument.into()),
    };
    let (start, end) = (start as usize, end as usize);
    let replaced = end.min(buffer.len()).saturating_sub(start);
    if buffer.len() - replaced + data.len() > MAX_EDITED {
        return Err(Status::BadArgument.into());
    }
    buffer.splice(start..end, data);
    Ok(())
}

/// What a guest may make of one buffer, in bytes: it is the host's memory.
const MAX_EDITED: usize = 16 << 20;

pub fn proxy_get_buffer_status(host: &mut Host<'_>, buffer: Int, len: OutInt, flags: OutInt) -> Answer {
    let kind = BufferKind::try_from(buffer).map_err(|_| Status::BadArgument)?;
    let bytes = with_buffer(host.vm(), kind, <[u8]>::len)?;
    host.write_int(len, u32::try_from(bytes).unwrap_or(u32::MAX))?;
    Ok(host.write_int(flags, 0)?)
}
