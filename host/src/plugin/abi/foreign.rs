//! Foreign functions: what is no part of the contract, but what filters for Envoy call.

use bytes::Bytes;
use weir_abi::{FilterState, SET_FILTER_STATE, Status};

use crate::plugin::abi::memory::Host;
use crate::plugin::abi::{Answer, Len, OutLen, OutPtr, Ptr};

pub fn proxy_call_foreign_function(
    host: &mut Host<'_>,
    name: Ptr,
    name_len: Len,
    argument: Ptr,
    argument_len: Len,
    data: OutPtr,
    data_len: OutLen,
) -> Answer {
    let ((name, argument), vm) = host.two((name, name_len), (argument, argument_len))?;
    if name != SET_FILTER_STATE.as_bytes() {
        return Err(Status::NotFound.into());
    }
    let state = FilterState::decode(argument).map_err(|_| Status::BadArgument)?;
    let context = vm.stream_mut()?;
    let value = Bytes::copy_from_slice(state.value);
    context.stream.borrow_mut().info.set_state(state.path.as_bytes(), value)?;
    // The guest may pass null for results that it does not want.
    if data == 0 || data_len == 0 { Ok(()) } else { host.give(&[], data, data_len) }
}
