//! One running VM: its start, its calls, its faults.
//!
//! Every entry into the guest goes through [`Instance::call`], under a budget. A call that traps, overruns or
//! exits ends the instance: whoever called drops it and asks for a new one.

mod enter;
mod fault;
mod on_fiber;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::{Store, Trap, TypedFunc, Val, WasmParams, WasmResults};
use wasmtime_wizer::{InstanceState, SnapshotVal};

use crate::plugin::abi::{self, Callbacks};
use crate::plugin::instance::enter::run;
use crate::plugin::instance::on_fiber::{run_at_start, to_its_end};
use crate::plugin::module::PluginModule;
use crate::plugin::parts::Parts;
use crate::plugin::quotas::Quota;
use crate::plugin::services::FaultKind;
use crate::plugin::spec::FilterSpec;
use crate::plugin::stream::SharedStream;
use crate::plugin::template::{Role, Template};
use crate::plugin::vm::{CallAnswer, Outgoing, Root, Starting, StreamContext, Vm};
use crate::telemetry::metrics::Held;

pub use fault::{Fault, StartError};

/// A running VM.
pub struct Instance {
    store: Store<Vm>,
    exports: wasmtime::Instance,
    callbacks: Callbacks,
    /// One for each root, so that the instance is counted as long as it lives.
    _alive: Vec<Held>,
}

/// What an instance is started with.
#[derive(Clone, Copy)]
pub struct StartCx<'a> {
    /// The module.
    pub module: &'a PluginModule,
    /// The filters that live in the instance and share its fate, and what they are given.
    pub parts: &'a Parts,
    /// The clusters that there are.
    pub clusters: &'a Arc<BTreeSet<Box<str>>>,
}

impl StartCx<'_> {
    fn start_cpu(&self) -> Duration {
        self.parts.filters().map(|spec| spec.start_cpu).max().unwrap_or_default()
    }
}

impl Instance {
    /// Instantiates a module, runs its start functions, and starts and configures its plugins.
    ///
    /// It takes as long as the plugin's `start_cpu` allows: never call it on a worker.
    ///
    /// # Errors
    /// When there is no room, when a call faults, or when the plugin refuses.
    pub fn start(cx: &StartCx<'_>) -> Result<Self, StartError> {
        let limit = cx.start_cpu();
        let mut started = Self::instantiate(cx, limit)?;
        started.run_start_functions(limit)?;
        for spec in cx.parts.filters() {
            started.start_root(spec)?;
        }
        // A start has a budget of its own.
        started.take_spent();
        started.take_long();
        Ok(started)
    }

    /// Makes an instance of a plugin that is configured already. Nothing of the guest runs.
    ///
    /// # Errors
    /// When there is no room.
    pub fn from_template(
        template: &Template,
        role: Role,
        parts: &Parts,
        clusters: &Arc<BTreeSet<Box<str>>>,
    ) -> Result<Self, StartError> {
        let cx = StartCx { module: &template.module, parts, clusters };
        let mut made = Self::instantiate(&cx, cx.start_cpu())?;
        template.fill(made.vm(), role);
        Ok(made)
    }

    fn instantiate(cx: &StartCx<'_>, limit: Duration) -> Result<Self, StartError> {
        let PluginModule { version, pre, on_fibers, entries, .. } = cx.module;
        let mut store = Store::new(pre.module().engine(), cx.parts.vm(*version, cx.clusters)?);
        store.limiter(|vm| &mut vm.limiter);
        store.epoch_deadline_callback(|mut store| {
            let vm = store.data_mut();
            vm.services.pulse.mark();
            Ok(match vm.fiber.clone() {
                Some(fiber) => fiber.epoch(vm),
                None => vm.budget.epoch(vm.services.pulse.epochs()),
            })
        });
        store.set_epoch_deadline(1);
        cx.parts.services().pulse.mark();
        store.data_mut().budget.begin(limit);
        let instantiated = if store.data().is_preemptible() {
            to_its_end(on_fibers.instantiate_async(&mut store))
        } else {
            pre.instantiate(&mut store)
        };
        let instance = instantiated.map_err(|error| match error.downcast_ref::<Trap>() {
            Some(_) => start_fault("the start function", &mut store, error),
            None if store.data().limiter.refused => {
                let limiter = &store.data().limiter;
                if limiter.quota == Quota::Memory {
                    StartError::Memory(limiter.limit())
                } else {
                    StartError::Quota(limiter.quota.as_str())
                }
            }
            None => StartError::NoRoom(format!("{error:#}")),
        })?;
        store.data_mut().memory = entries.memory(&instance, &mut store);
        store.data_mut().allocator = entries.allocator(&instance, &mut store);
        store.data_mut().offers_room = entries.offers_room;
        let callbacks = entries.callbacks(&instance, &mut store);
        // What a VM has of memory is counted of its first filter.
        let initial = store.data().limiter.used as i64;
        store.data().roots.iter().take(1).for_each(|root| root.usage.memory_grew(initial, initial));
        let alive = store.data().roots.iter().map(|root| root.usage.instances.hold()).collect();
        Ok(Self { store, exports: instance, callbacks, _alive: alive })
    }

    /// `_initialize` and then `main`, or else `_start`.
    fn run_start_functions(&mut self, limit: Duration) -> Result<(), StartError> {
        let Self { store, exports: instance, .. } = self;
        let plain = |store: &mut Store<Vm>, name| instance.get_typed_func::<(), ()>(store, name).ok();
        if let Some(initialize) = plain(store, "_initialize") {
            run_at_start(store, 0, &initialize, (), limit).map_err(|fault| fault.at_start("_initialize"))?;
            if let Ok(main) = instance.get_typed_func::<(u32, u32), u32>(&mut *store, "main") {
                well_ended(run_at_start(store, 0, &main, (0, 0), limit))
                    .map_err(|fault| fault.at_start("main"))?;
            } else if let Ok(main) = instance.get_typed_func::<(), u32>(&mut *store, "__main_void") {
                well_ended(run_at_start(store, 0, &main, (), limit))
                    .map_err(|fault| fault.at_start("__main_void"))?;
            }
        } else if let Some(start) = plain(store, "_start") {
            well_ended(run_at_start(store, 0, &start, (), limit))
                .map_err(|fault| fault.at_start("_start"))?;
        }
        Ok(())
    }

    /// Creates a plugin's root context, starts it and configures it.
    fn start_root(&mut self, spec: &Arc<FilterSpec>) -> Result<(), StartError> {
        let Some(root) = self.store.data().roots.iter().find(|root| root.spec == *spec).map(|root| root.id)
        else {
            return Ok(());
        };
        let limit = spec.start_cpu;
        let Self { store, callbacks, .. } = self;
        if let Some(create) = &callbacks.proxy_on_context_create {
            run_at_start(store, root, create, (root, 0), limit)
                .map_err(|f| f.at_start("proxy_on_context_create"))?;
        }
        let steps = [
            ("proxy_on_vm_start", &callbacks.proxy_on_vm_start, Starting::Vm, spec.vm_config.len()),
            ("proxy_on_configure", &callbacks.proxy_on_configure, Starting::Plugin, spec.config.len()),
        ];
        for (callback, function, starting, len) in steps {
            let Some(function) = function else { continue };
            set_starting(store.data_mut(), root, Some(starting));
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            let accepted = run_at_start(store, root, function, (root, len), limit);
            set_starting(store.data_mut(), root, None);
            if accepted.map_err(|fault| fault.at_start(callback))? == 0 {
                return Err(StartError::Refused { callback, log: store.data_mut().last_error.take() });
            }
        }
        Ok(())
    }

    /// Calls a callback in the name of a context. `None` when the guest does not export it.
    ///
    /// # Errors
    /// A fault, after which the instance must not be called again.
    #[inline]
    pub fn call<P, R>(
        &mut self,
        context: u32,
        limit: Duration,
        which: impl FnOnce(&Callbacks) -> &Option<TypedFunc<P, R>>,
        params: P,
    ) -> Result<Option<R>, Fault>
    where
        P: WasmParams,
        R: WasmResults,
    {
        let place = which(&self.callbacks);
        let Some(function) = place else { return Ok(None) };
        if self.store.data().watch.is_none() {
            return run(&mut self.store, context, function, params, limit).map(Some);
        }
        let name = self.callbacks.name_of(std::ptr::from_ref(place).cast());
        let start = self.store.data_mut().watch.as_mut().map(|watch| watch.begin());
        let called = run(&mut self.store, context, function, params, limit);
        if let (Some(watch), Some(start)) = (&mut self.store.data_mut().watch, start) {
            watch.end(name, start);
        }
        called.map(Some)
    }

    /// The callbacks of the guest.
    pub fn callbacks(&self) -> &Callbacks {
        &self.callbacks
    }

    /// Whether the guest exports a callback.
    pub fn exports<P, R>(&self, which: impl FnOnce(&Callbacks) -> &Option<TypedFunc<P, R>>) -> bool {
        which(&self.callbacks).is_some()
    }

    /// Makes a context for a stream, and tells the guest.
    ///
    /// # Errors
    /// A fault.
    pub fn create_stream(
        &mut self,
        root: u32,
        place: usize,
        stream: SharedStream,
        limit: Duration,
    ) -> Result<u32, Fault> {
        let vm = self.store.data_mut();
        let known = vm.roots.iter().find(|known| known.id == root);
        let rights = known.map(|known| known.spec.grants.rights).unwrap_or_default();
        let id = vm.add_stream(StreamContext::new(root, place, rights, stream));
        self.call(id, limit, |callbacks| &callbacks.proxy_on_context_create, (id, root))?;
        Ok(id)
    }

    /// Whether a root may have another stream. A refusal is counted.
    pub fn has_room(&self, root: u32) -> bool {
        let vm = self.store.data();
        let Some(root) = vm.roots.iter().find(|known| known.id == root) else { return true };
        let room = vm.streams.len() < root.spec.streams;
        if !room {
            root.refusals.refuse(Quota::Streams);
        }
        room
    }

    /// Forgets a context.
    pub fn delete_stream(&mut self, id: u32) {
        self.store.data_mut().streams.remove(&id);
    }

    /// The context of a stream.
    pub fn stream(&mut self, id: u32) -> Option<&mut StreamContext> {
        self.store.data_mut().streams.get_mut(&id)
    }

    /// The VM's data.
    pub fn vm(&mut self) -> &mut Vm {
        self.store.data_mut()
    }

    /// The guest's memory as it is now, for whoever looks at an instance from outside.
    pub fn memory(&mut self) -> Option<&mut [u8]> {
        let memory = self.store.data().memory?;
        Some(memory.data_mut(&mut self.store))
    }

    /// The interval of a plugin's timer, and how often it was set.
    pub fn tick(&mut self, root: u32) -> Option<(Duration, u64)> {
        self.root(root)?.tick
    }

    /// Lays the answer to a call before a plugin, or takes it away.
    pub fn set_answer(&mut self, root: u32, answer: Option<(u32, CallAnswer)>) {
        if let Some(root) = self.root(root) {
            if let Some((token, _)) = &answer {
                root.calls.end(*token);
            }
            root.answer = answer.map(|(_, answer)| answer);
        }
    }

    /// CPU time that was used since it was last billed, in nanoseconds.
    pub fn spent(&self) -> u64 {
        self.store.data().spent
    }

    /// Takes that time, to bill it.
    #[inline]
    pub fn take_spent(&mut self) -> u64 {
        std::mem::take(&mut self.store.data_mut().spent)
    }

    /// Takes what calls took of that beyond their first half millisecond.
    #[inline]
    pub fn take_long(&mut self) -> u64 {
        self.store.data_mut().long.take()
    }

    /// A plugin in the VM, by its root context.
    pub fn root(&mut self, id: u32) -> Option<&mut Root> {
        self.store.data_mut().roots.iter_mut().find(|root| root.id == id)
    }

    /// Whether there is something to be done now that the guest has returned.
    pub fn has_outgoing(&self) -> bool {
        !self.store.data().outbox.is_empty()
    }

    /// What is to be done now that the guest has returned.
    pub fn take_outgoing(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.store.data_mut().outbox)
    }
}

/// A program need not return from its `main`: it may exit with status 0 as well.
fn well_ended<R>(ran: Result<R, Fault>) -> Result<(), Fault> {
    match ran {
        Err(Fault { kind: FaultKind::Exit, exited: Some(0), .. }) => Ok(()),
        ran => ran.map(drop),
    }
}

fn set_starting(vm: &mut Vm, root: u32, starting: Option<Starting>) {
    if let Some(root) = vm.roots.iter_mut().find(|found| found.id == root) {
        root.starting = starting;
    }
}

fn start_fault(callback: &'static str, store: &mut Store<Vm>, error: wasmtime::Error) -> StartError {
    Fault::new(store.data(), &error).at_start(callback)
}

impl Drop for Instance {
    fn drop(&mut self) {
        let vm = self.store.data_mut();
        abi::flush(vm);
        if let Some(root) = vm.roots.first() {
            root.usage.memory.add(-(vm.limiter.used as i64));
        }
    }
}

impl InstanceState for Instance {
    async fn global_get(&mut self, name: &str, _: wasmtime_wizer::ValType) -> SnapshotVal {
        let value = self.exports.get_global(&mut self.store, name).map(|global| global.get(&mut self.store));
        match value {
            Some(Val::I32(bits)) => SnapshotVal::I32(bits),
            Some(Val::I64(bits)) => SnapshotVal::I64(bits),
            Some(Val::F32(bits)) => SnapshotVal::F32(bits),
            Some(Val::F64(bits)) => SnapshotVal::F64(bits),
            Some(Val::V128(bits)) => SnapshotVal::V128(bits.as_u128()),
            // Wizer has refused modules with such globals, and a guest that took its names for its own.
            _ => panic!("`{name}` is no global that can be copied"),
        }
    }

    async fn memory_contents(&mut self, name: &str, contents: impl FnOnce(&[u8]) + Send) {
        let memory = self.exports.get_memory(&mut self.store, name);
        contents(memory.map_or(&[], |memory| memory.data(&self.store)));
    }
}
