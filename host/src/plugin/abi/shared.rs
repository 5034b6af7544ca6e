//! Shared data and shared queues.

use weir_abi::Status;

use crate::plugin::abi::memory::Host;
use crate::plugin::abi::{Answer, Int, Len, OutInt, OutLen, OutPtr, Ptr};

pub fn proxy_get_shared_data(
    host: &mut Host<'_>,
    key: Ptr,
    key_len: Len,
    data: OutPtr,
    data_len: OutLen,
    cas: OutInt,
) -> Answer {
    let (key, vm) = host.bytes(key, key_len)?;
    let (value, current) = vm.space.get(key).ok_or(Status::NotFound)?;
    host.give(&value, data, data_len)?;
    Ok(host.write_int(cas, current)?)
}

pub fn proxy_set_shared_data(
    host: &mut Host<'_>,
    key: Ptr,
    key_len: Len,
    value: Ptr,
    value_len: Len,
    cas: Int,
) -> Answer {
    let ((key, value), vm) = host.two((key, key_len), (value, value_len))?;
    Ok(vm.space.set(key, value, cas)?)
}

pub fn proxy_register_shared_queue(_: &mut Host<'_>, _name: Ptr, _name_len: Len, _queue: OutInt) -> Answer {
    Err(Status::Unimplemented.into())
}

pub fn proxy_resolve_shared_queue(
    _: &mut Host<'_>,
    _vm_id: Ptr,
    _vm_id_len: Len,
    _name: Ptr,
    _name_len: Len,
    _queue: OutInt,
) -> Answer {
    Err(Status::Unimplemented.into())
}

pub fn proxy_enqueue_shared_queue(_: &mut Host<'_>, _queue: Int, _value: Ptr, _value_len: Len) -> Answer {
    Err(Status::Unimplemented.into())
}

pub fn proxy_dequeue_shared_queue(_: &mut Host<'_>, _queue: Int, _data: OutPtr, _data_len: OutLen) -> Answer {
    Err(Status::Unimplemented.into())
}
