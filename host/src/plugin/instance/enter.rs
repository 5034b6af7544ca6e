//! Entering the guest: what each call begins and ends with, and what it is billed.

use std::time::Duration;

use wasmtime::{Store, TypedFunc, WasmParams, WasmResults};

use crate::clock::{cycles, thread_cpu_time};
use crate::plugin::engine::EPOCH;
use crate::plugin::instance::Fault;
use crate::plugin::vm::Vm;

/// Enters the guest.
#[inline]
pub(super) fn run<P, R>(
    store: &mut Store<Vm>,
    context: u32,
    function: &TypedFunc<P, R>,
    params: P,
    limit: Duration,
) -> Result<R, Fault>
where
    P: WasmParams,
    R: WasmResults,
{
    let before = enter(store, context, limit);
    let (start, clock) = (cycles::now(), store.data().long.begin());
    let result = function.call(&mut *store, params);
    let wall = cycles::between(start, cycles::now());
    let vm = store.data_mut();
    let measured = clock.map(|clock| thread_cpu_time().saturating_sub(clock));
    // Wall time, unless an epoch has passed, or should have: then the thread may have been put aside for a while.
    let spent = measured.unwrap_or_else(|| wall.min(vm.budget.spent().unwrap_or_default() + EPOCH));
    vm.long.end(spent, measured.is_some());
    leave(store, context, before, spent);
    result.map_err(|error| Fault::new(store.data(), &error))
}

/// What a call begins with. The memory that the guest has.
#[inline]
pub(super) fn enter(store: &mut Store<Vm>, context: u32, limit: Duration) -> usize {
    let vm = store.data_mut();
    vm.effective = context;
    vm.weighed.forget();
    vm.services.pulse.mark();
    vm.budget.begin(limit);
    vm.limiter.refused = false;
    let before = vm.limiter.used;
    store.set_epoch_deadline(1);
    before
}

/// What a call ends with.
#[inline]
pub(super) fn leave(store: &mut Store<Vm>, context: u32, before: usize, spent: Duration) {
    let vm = store.data_mut();
    vm.effective = context;
    vm.long.carries(spent, vm.carried);
    let spent = bill(spent, &mut vm.carried);
    vm.spent = vm.spent.saturating_add(spent);
    if let Ok(root) = vm.root() {
        root.usage.calls.inc();
        root.usage.cpu.add(spent);
    }
    if let Some(root) = vm.roots.first().filter(|_| vm.limiter.used != before) {
        let now = vm.limiter.used as i64;
        root.usage.memory_grew(now - before as i64, now);
    }
}

/// What a call is billed, in nanoseconds: its CPU time, and what it takes to carry what it has added to messages, once.
fn bill(spent: Duration, carried: &mut u64) -> u64 {
    let spent = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
    spent.saturating_add(std::mem::take(carried))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_has_added_to_messages_is_billed_with_it_and_not_with_the_next() {
        let (call, mut carried) = (Duration::from_nanos(7), 2_000_000);
        assert_eq!([bill(call, &mut carried), bill(call, &mut carried)], [2_000_007, 7]);
    }
}
