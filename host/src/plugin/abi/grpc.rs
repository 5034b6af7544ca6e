//! gRPC calls. They are not there yet: every function answers UNIMPLEMENTED.

use weir_abi::Status;

use crate::plugin::abi::memory::Host;
use crate::plugin::abi::{Answer, Int, Len, OutInt, Ptr};

#[expect(clippy::too_many_arguments, reason = "the ABI's signature")]
pub fn proxy_grpc_call(
    _: &mut Host<'_>,
    _service: Ptr,
    _service_len: Len,
    _name: Ptr,
    _name_len: Len,
    _method: Ptr,
    _method_len: Len,
    _metadata: Ptr,
    _metadata_len: Len,
    _message: Ptr,
    _message_len: Len,
    _timeout: Int,
    _call: OutInt,
) -> Answer {
    Err(Status::Unimplemented.into())
}

#[expect(clippy::too_many_arguments, reason = "the ABI's signature")]
pub fn proxy_grpc_stream(
    _: &mut Host<'_>,
    _service: Ptr,
    _service_len: Len,
    _name: Ptr,
    _name_len: Len,
    _method: Ptr,
    _method_len: Len,
    _metadata: Ptr,
    _metadata_len: Len,
    _call: OutInt,
) -> Answer {
    Err(Status::Unimplemented.into())
}

pub fn proxy_grpc_send(_: &mut Host<'_>, _call: Int, _message: Ptr, _message_len: Len, _end: Int) -> Answer {
    Err(Status::Unimplemented.into())
}

pub fn proxy_grpc_cancel(_: &mut Host<'_>, _call: Int) -> Answer {
    Err(Status::Unimplemented.into())
}

pub fn proxy_grpc_close(_: &mut Host<'_>, _call: Int) -> Answer {
    Err(Status::Unimplemented.into())
}
