//! Buffers: bodies, TCP data, configurations, the answers of calls.

use bytes::Bytes;
use weir_abi::{BufferKind, Status};

use crate::http::body::Buffer;
use crate::plugin::abi::memory::Host;
use crate::plugin::abi::{Answer, Int, Len, OutInt, OutLen, OutPtr, Ptr};
use crate::plugin::stream::Stream;
use crate::plugin::vm::{Starting, Vm};

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
    let bytes = read(host.vm(), kind, start as usize, end as usize)?;
    host.give(&bytes, data, data_len)
}

/// A range of a buffer, cut to what is there.
fn read(vm: &Vm, kind: BufferKind, start: usize, end: usize) -> Result<Bytes, Status> {
    let cut = |bytes: &[u8]| {
        let end = end.min(bytes.len());
        Bytes::copy_from_slice(bytes.get(start.min(end)..end).unwrap_or(&[]))
    };
    match kind {
        BufferKind::HttpRequestBody
        | BufferKind::HttpResponseBody
        | BufferKind::DownstreamData
        | BufferKind::UpstreamData => {
            let context = vm.stream().map_err(|_| Status::NotFound)?;
            if !context.access.has_buffer(kind) {
                return Err(Status::NotFound);
            }
            let stream = context.stream.borrow();
            Ok(cut(of_stream(&stream, kind).ok_or(Status::NotFound)?.as_slice()))
        }
        BufferKind::HttpCallResponseBody => {
            let answer = vm.root()?.answer.as_ref().ok_or(Status::NotFound)?;
            Ok(cut(&answer.body))
        }
        // As in Envoy, a configuration can be read as long as the plugin is being started with it.
        BufferKind::VmConfiguration => match vm.root()? {
            root if root.starting == Some(Starting::Vm) => Ok(cut(&root.spec.vm_config)),
            _ => Err(Status::NotFound),
        },
        BufferKind::PluginConfiguration => match vm.root()? {
            root if root.starting == Some(Starting::Plugin) => Ok(cut(&root.spec.config)),
            _ => Err(Status::NotFound),
        },
        BufferKind::GrpcReceiveBuffer | BufferKind::CallData => Err(Status::NotFound),
    }
}

fn of_stream(stream: &Stream, kind: BufferKind) -> Option<&Buffer> {
    match kind {
        BufferKind::HttpRequestBody | BufferKind::DownstreamData => Some(&stream.received),
        BufferKind::HttpResponseBody | BufferKind::UpstreamData => Some(&stream.answered),
        BufferKind::HttpCallResponseBody
        | BufferKind::GrpcReceiveBuffer
        | BufferKind::VmConfiguration
        | BufferKind::PluginConfiguration
        | BufferKind::CallData => None,
    }
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
    let place = 1 << context.place;
    let mut stream = context.stream.borrow_mut();
    let buffer = match kind {
        BufferKind::HttpRequestBody | BufferKind::DownstreamData => {
            stream.edited_received |= place;
            stream.changed_received = true;
            &mut stream.received
        }
        BufferKind::HttpResponseBody | BufferKind::UpstreamData => {
            stream.edited_answered |= place;
            stream.changed_answered = true;
            &mut stream.answered
        }
        BufferKind::HttpCallResponseBody
        | BufferKind::GrpcReceiveBuffer
        | BufferKind::VmConfiguration
        | BufferKind::PluginConfiguration
        | BufferKind::CallData => return Err(Status::BadArgument.into()),
    };
    let end = start.checked_add(len).ok_or(Status::BadArgument)?;
    buffer.splice(start as usize..end as usize, data);
    Ok(())
}

pub fn proxy_get_buffer_status(host: &mut Host<'_>, buffer: Int, len: OutInt, flags: OutInt) -> Answer {
    let kind = BufferKind::try_from(buffer).map_err(|_| Status::BadArgument)?;
    let bytes = read(host.vm(), kind, 0, usize::MAX)?;
    host.write_int(len, u32::try_from(bytes.len()).unwrap_or(u32::MAX))?;
    Ok(host.write_int(flags, 0)?)
}
