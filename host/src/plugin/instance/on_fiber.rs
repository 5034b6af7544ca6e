//! Calls on fibers: those of an instance whose calls give way, from its start on.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wasmtime::{Store, TypedFunc, WasmParams, WasmResults};

use crate::clock::thread_cpu_time;
use crate::plugin::abi::Callbacks;
use crate::plugin::instance::enter::{enter, leave, run};
use crate::plugin::instance::{Fault, Instance};
use crate::plugin::vm::Vm;

impl Instance {
    /// As [`Instance::call`], on a fiber, which gives way whenever an epoch passes. Once it is begun, to drop it is to
    /// end the instance.
    ///
    /// # Errors
    /// As [`Instance::call`].
    pub async fn call_on_fiber<P, R>(
        &mut self,
        context: u32,
        limit: Duration,
        which: impl FnOnce(&Callbacks) -> &Option<TypedFunc<P, R>>,
        params: P,
    ) -> Result<Option<R>, Fault>
    where
        P: WasmParams + Sync,
        R: WasmResults + Sync,
    {
        let place = which(&self.callbacks);
        let Some(function) = place else { return Ok(None) };
        let start = self.store.data_mut().watch.as_mut().map(|watch| watch.begin());
        let called = run_on_fiber(&mut self.store, context, function, params, limit).await;
        if let (Some(watch), Some(start)) = (&mut self.store.data_mut().watch, start) {
            watch.end(self.callbacks.name_of(std::ptr::from_ref(place).cast()), start);
        }
        called.map(Some)
    }
}

/// Enters the guest on a fiber. It gives way from when the instance is on a worker; before, it runs to its end.
async fn run_on_fiber<P, R>(
    store: &mut Store<Vm>,
    context: u32,
    function: &TypedFunc<P, R>,
    params: P,
    limit: Duration,
) -> Result<R, Fault>
where
    P: WasmParams + Sync,
    R: WasmResults + Sync,
{
    let before = enter(store, context, limit);
    let fiber = store.data().fiber.clone();
    if let Some(fiber) = &fiber {
        fiber.begin(limit);
    }
    let start = thread_cpu_time();
    let result = function.call_async(&mut *store, params).await;
    let spent = match fiber {
        Some(fiber) => fiber.spent(),
        None => thread_cpu_time().saturating_sub(start),
    };
    store.data_mut().take_streams_back();
    leave(store, context, before, spent);
    result.map_err(|error| Fault::new(store.data(), &error))
}

/// Enters the guest while it is started, off the workers.
pub(super) fn run_at_start<P, R>(
    store: &mut Store<Vm>,
    context: u32,
    function: &TypedFunc<P, R>,
    params: P,
    limit: Duration,
) -> Result<R, Fault>
where
    P: WasmParams + Sync,
    R: WasmResults + Sync,
{
    if store.data().is_preemptible() {
        to_its_end(run_on_fiber(store, context, function, params, limit))
    } else {
        run(store, context, function, params, limit)
    }
}

/// Runs what waits for nothing.
pub(super) fn to_its_end<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
    }
}
