//! A worker's side of its plugin instances: who calls them, what happens when one ends, their timers and calls.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::plugin::digest::Digest;
use crate::plugin::instance::{Fault, Instance, StartCx, StartError};
use crate::plugin::module::PluginModule;
use crate::plugin::services::Services;
use crate::plugin::spec::FilterSpec;
use crate::plugin::vm::{CallAnswer, HttpCall, Outgoing};

/// What a VM is made of: one version of a plugin, and the filters that live in it.
pub struct VmSpec {
    /// A number that no other VM of this process has.
    pub id: u64,
    /// The version.
    pub digest: Digest,
    /// Its module.
    pub module: PluginModule,
    /// The filters that live in it, each with a root context of its own.
    pub filters: Vec<Arc<FilterSpec>>,
    /// What all VMs share.
    pub services: Arc<Services>,
}

impl VmSpec {
    /// A VM of these filters.
    pub fn new(
        digest: Digest,
        module: PluginModule,
        filters: Vec<Arc<FilterSpec>>,
        services: Arc<Services>,
    ) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self { id: NEXT.fetch_add(1, Ordering::Relaxed), digest, module, filters, services })
    }

    /// Starts an instance. Never call it on a worker.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn start(&self, clusters: &Arc<BTreeSet<Box<str>>>) -> Result<Instance, StartError> {
        Instance::start(&StartCx {
            module: &self.module.pre,
            version: self.module.version,
            filters: &self.filters,
            services: &self.services,
            clusters,
        })
    }
}

/// What plugins need of the worker that they run on. The proxy implements it.
pub trait PluginHost {
    /// Sends an HTTP request, and hands the answer (`None` when there is none) to `then`.
    fn http_call(&self, call: HttpCall, then: Box<dyn FnOnce(Option<CallAnswer>)>);

    /// An instance has ended by a fault: a new one is wanted.
    fn condemned(&self, vm: &Arc<VmSpec>);

    /// An instance is not needed any more. It is to be dropped off the worker.
    fn retire(&self, instance: Box<Instance>);
}

/// A VM on one worker.
pub struct VmCell {
    spec: Arc<VmSpec>,
    host: Rc<dyn PluginHost>,
    /// The instance; none between a fault and the arrival of the next one.
    instance: RefCell<Option<Box<Instance>>>,
    /// How many instances there have been: a context belongs to one of them.
    generation: Cell<u64>,
    me: Weak<VmCell>,
}

/// A filter cannot be called: its instance has just ended, or there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

impl VmCell {
    /// A VM with its first instance.
    pub fn new(spec: Arc<VmSpec>, host: Rc<dyn PluginHost>, instance: Box<Instance>) -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            spec,
            host,
            instance: RefCell::new(Some(instance)),
            generation: Cell::new(0),
            me: me.clone(),
        })
    }

    /// What it is made of.
    pub fn spec(&self) -> &Arc<VmSpec> {
        &self.spec
    }

    /// Takes a new instance after a fault. Its timers start.
    pub fn replace(&self, instance: Box<Instance>) {
        self.generation.set(self.generation.get() + 1);
        let old = self.instance.borrow_mut().replace(instance);
        if let Some(old) = old {
            self.host.retire(old);
        }
        self.run_outgoing();
    }

    /// Does what the guest asked for while it was started, timers first of all. Called when it is published.
    pub fn run_outgoing(&self) {
        let outgoing = self.instance.borrow_mut().as_mut().map(|instance| instance.take_outgoing());
        self.carry_out(outgoing.unwrap_or_default());
    }

    /// Tells the guest which clusters there are.
    pub fn set_clusters(&self, clusters: &Arc<BTreeSet<Box<str>>>) {
        if let Some(instance) = self.instance.borrow_mut().as_mut() {
            instance.vm().clusters = Arc::clone(clusters);
        }
    }

    /// Which instance this is; contexts of another one are gone.
    pub fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// Runs `work` on the instance of a generation. A fault ends the instance.
    ///
    /// # Errors
    /// When there is no such instance, or not any more.
    pub fn with<T>(
        &self,
        generation: u64,
        work: impl FnOnce(&mut Instance) -> Result<T, Fault>,
    ) -> Result<T, Unavailable> {
        if generation != self.generation.get() {
            return Err(Unavailable);
        }
        let mut slot = self.instance.borrow_mut();
        let instance = slot.as_mut().ok_or(Unavailable)?;
        // A panic below is a mistake of ours, and yet only this plugin is to feel it: it is a fault like others.
        let worked =
            catch_unwind(AssertUnwindSafe(|| work(instance))).unwrap_or_else(|_| Err(Fault::of_the_host()));
        match worked {
            Ok(done) => {
                if instance.has_outgoing() {
                    let outgoing = instance.take_outgoing();
                    drop(slot);
                    self.carry_out(outgoing);
                }
                Ok(done)
            }
            Err(fault) => {
                let instance = slot.take();
                drop(slot);
                self.condemn(instance, &fault);
                Err(Unavailable)
            }
        }
    }

    /// Puts an end to an instance: its streams are woken to meet their failure policy, and a new one is asked for.
    fn condemn(&self, instance: Option<Box<Instance>>, fault: &Fault) {
        self.generation.set(self.generation.get() + 1);
        let plugin = self.spec.filters.first().map_or("", |spec| &*spec.plugin);
        let (digest, kind) = (self.spec.digest, fault.kind.as_str());
        tracing::error!(plugin, %digest, kind, "a plugin failed and is started anew: {}", fault.message);
        if let Some(mut instance) = instance {
            instance.vm().streams.values().for_each(|stream| stream.wake());
            self.host.retire(instance);
        }
        self.host.condemned(&self.spec);
    }

    fn carry_out(&self, outgoing: Vec<Outgoing>) {
        for item in outgoing {
            match item {
                Outgoing::Tick { root } => self.start_timer(root),
                Outgoing::Call(call) => {
                    let (me, generation, root, token) =
                        (self.me.clone(), self.generation(), call.root, call.token);
                    let then = move |answer: Option<CallAnswer>| {
                        if let Some(cell) = me.upgrade() {
                            cell.call_answered(generation, root, token, answer);
                        }
                    };
                    self.host.http_call(*call, Box::new(then));
                }
            }
        }
    }

    /// Runs the timer of a root context, as long as its interval stays the same.
    fn start_timer(&self, root: u32) {
        let generation = self.generation();
        let period = self.with(generation, |instance| Ok(instance.tick(root))).ok().flatten();
        let Some((period, serial)) = period else { return };
        let me = self.me.clone();
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(period).await;
                let Some(cell) = me.upgrade() else { return };
                let current = cell.with(generation, |instance| Ok(instance.tick(root))).ok().flatten();
                if current != Some((period, serial)) {
                    return;
                }
                let Some(limit) = cell.limit(root) else { return };
                let ticked = cell.with(generation, |instance| {
                    instance.call(root, limit, |callbacks| &callbacks.proxy_on_tick, (root,))
                });
                if ticked.is_err() {
                    return;
                }
            }
        });
    }

    /// Tells the guest how a call ended: with an answer, or, all zeros, without.
    fn call_answered(&self, generation: u64, root: u32, token: u32, answer: Option<CallAnswer>) {
        let Some(limit) = self.limit(root) else { return };
        // A guest that is gone hears nothing.
        let _ = self.with(generation, |instance| {
            let counts = match &answer {
                Some(answer) => {
                    let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
                    (count(answer.headers.len() + 1), count(answer.body.len()), count(answer.trailers.len()))
                }
                None => (0, 0, 0),
            };
            instance.set_answer(root, Some((token, answer.unwrap_or_default())));
            let params = (root, token, counts.0, counts.1, counts.2);
            let told = instance.call(root, limit, |callbacks| &callbacks.proxy_on_http_call_response, params);
            instance.set_answer(root, None);
            told
        });
    }

    /// The CPU budget of the calls into a root context. Root contexts are numbered from 1.
    fn limit(&self, root: u32) -> Option<Duration> {
        let place = (root as usize).checked_sub(1)?;
        self.spec.filters.get(place).map(|spec| spec.cpu)
    }
}

impl Drop for VmCell {
    /// The last stream is gone and no snapshot holds the VM: its plugins are told, and the instance goes.
    fn drop(&mut self) {
        if let Some(mut instance) = self.instance.take() {
            for (root, spec) in (1..).zip(&self.spec.filters) {
                // Nobody is left who could be told of a fault.
                let _ = instance.call(root, spec.cpu, |callbacks| &callbacks.proxy_on_done, (root,));
                let _ = instance.call(root, spec.cpu, |callbacks| &callbacks.proxy_on_delete, (root,));
            }
            self.host.retire(instance);
        }
    }
}
