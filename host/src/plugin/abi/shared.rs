//! Shared data and shared queues.

use std::sync::Arc;

use weir_abi::Status;

use crate::plugin::abi::memory::Host;
use crate::plugin::abi::{Answer, Int, Len, OutInt, OutLen, OutPtr, Ptr};
use crate::plugin::quotas::{Quota, Unwritten};
use crate::plugin::spec::scope_of;
use crate::plugin::vm::{Outgoing, Root, Vm};

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
    Ok(vm.space.set(key, value, cas, total(vm)).map_err(|why| tell(vm, why))?)
}

pub fn proxy_register_shared_queue(host: &mut Host<'_>, name: Ptr, name_len: Len, queue: OutInt) -> Answer {
    // No queue is opened for a guest that will not learn its token.
    host.check(queue, 4)?;
    let (name, vm) = host.bytes(name, name_len)?;
    let root = vm.root()?.id;
    let open = vm.services.queues.open(&vm.scope, name);
    let token = open.ok_or_else(|| tell(vm, Unwritten::Quota(Quota::Shared)))?;
    // One word of it is enough, however often a guest registers in one callback.
    let known = |told: &Outgoing| matches!(told, Outgoing::Listen { root: by, queue } if (*by, *queue) == (root, token));
    if !vm.outbox.iter().any(known) {
        vm.outbox.push(Outgoing::Listen { root, queue: token });
    }
    Ok(host.write_int(queue, token)?)
}

/// An empty `vm_id` is the guest's own.
pub fn proxy_resolve_shared_queue(
    host: &mut Host<'_>,
    vm_id: Ptr,
    vm_id_len: Len,
    name: Ptr,
    name_len: Len,
    queue: OutInt,
) -> Answer {
    let ((vm_id, name), vm) = host.two((vm_id, vm_id_len), (name, name_len))?;
    let scope = match str::from_utf8(vm_id).map_err(|_| Status::NotFound)? {
        "" => Arc::clone(&vm.scope),
        vm_id => scope_of(vm_id).into(),
    };
    if !vm.may_share(&scope) {
        return Err(Status::NotFound.into());
    }
    let token = vm.services.queues.find(&scope, name).ok_or(Status::NotFound)?;
    Ok(host.write_int(queue, token)?)
}

pub fn proxy_enqueue_shared_queue(host: &mut Host<'_>, queue: Int, value: Ptr, value_len: Len) -> Answer {
    let (value, vm) = host.bytes(value, value_len)?;
    check(vm, queue)?;
    Ok(vm.services.queues.push(queue, value, total(vm)).map_err(|why| tell(vm, why))?)
}

pub fn proxy_dequeue_shared_queue(host: &mut Host<'_>, queue: Int, data: OutPtr, data_len: OutLen) -> Answer {
    host.check(data, 4)?;
    host.check(data_len, 4)?;
    check(host.vm(), queue)?;
    let value = host.vm().services.queues.pop(queue)?;
    let given = value.clone();
    // What the guest has no room for is not lost. What ends its instance is: it would end the next one, too.
    host.give_or(&given, data, data_len, move |vm| vm.services.queues.put_back(queue, value))
}

/// Whose quotas count. Those of a VM are of one configuration, so that any will do where the guest acts for none.
fn payer(vm: &Vm) -> Option<&Root> {
    vm.root().ok().or_else(|| vm.roots.first())
}

/// Bytes that all scopes may have together.
fn total(vm: &Vm) -> usize {
    payer(vm).map_or(0, |root| root.spec.shared_total)
}

/// What the guest is told of what was not written. A quota that is used up is counted.
fn tell(vm: &Vm, why: Unwritten) -> Status {
    match why {
        Unwritten::Status(status) => status,
        Unwritten::Quota(quota) => {
            payer(vm).into_iter().for_each(|root| root.refusals.refuse(quota));
            Status::InternalFailure
        }
    }
}

/// Whether the filter may use a queue. Its number is no proof of that: numbers can be guessed.
fn check(vm: &Vm, queue: u32) -> Result<(), Status> {
    let scope = vm.services.queues.scope(queue).ok_or(Status::NotFound)?;
    if vm.may_share(&scope) { Ok(()) } else { Err(Status::NotFound) }
}
