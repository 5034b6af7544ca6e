//! A worker's side of its plugin instances: who calls them, what happens when one fails, and how they end. What they
//! ask for and hear of besides their streams is in `filter/events.rs`, and the calls that give way in
//! `filter/lane.rs`.

mod account;
mod admission;
mod errands;
mod events;
mod lane;
mod of_stream;
mod vm_spec;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::plugin::fiber::Turns;
use crate::plugin::filter::admission::Books;
use crate::plugin::filter::errands::Errands;
use crate::plugin::filter::lane::Lane;
use crate::plugin::instance::{Fault, Instance};
use crate::plugin::vm::{CallAnswer, GrpcOpen, HttpCall, Outgoing};

pub use account::{Account, Toll};
pub use events::GrpcEvent;
pub use lane::{Returned, Which, set_access};
pub use vm_spec::VmSpec;

/// What plugins need of the worker that they run on. The proxy implements it.
pub trait PluginHost {
    /// Sends an HTTP request at the expense of `account`, and hands the answer (`None` when there is none) to `then`.
    fn http_call(&self, call: HttpCall, account: Account, then: Box<dyn FnOnce(Option<CallAnswer>)>);

    /// Begins a gRPC call or stream at the expense of `account`, and hands what it brings to `then`, never before this has
    /// returned.
    fn grpc(&self, open: GrpcOpen, account: Account, then: Box<dyn Fn(GrpcEvent)>) -> Box<dyn GrpcSender>;

    /// An instance has ended by a fault: a new one is wanted.
    fn condemned(&self, vm: &Arc<VmSpec>);

    /// The instance of a stream has ended by a fault.
    fn stream_failed(&self, vm: &Arc<VmSpec>);

    /// A plugin holds back its end: its VM is to live until it has ended, or until that takes too long.
    fn linger(&self, vm: Rc<VmCell>);

    /// An instance is not needed any more. It is to be dropped off the worker.
    fn retire(&self, instance: Box<Instance>);

    /// Whose turn it is among the calls that give way.
    fn turns(&self) -> &Turns;

    /// Waits for the next tick of a timer.
    fn sleep(&self, period: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(tokio::time::sleep(period))
    }
}

/// The guest's half of a gRPC call. To drop it is to give the call up, when it has not ended.
pub trait GrpcSender {
    /// Sends a message, or only ends the half.
    fn send(&self, message: Option<Bytes>, end: bool);
}

/// A VM on one worker, as its users hold it: a snapshot, and the streams that run in it. With the last of them its
/// plugins end. Where calls give way it has several instances, each of which is a cell of its own: what an instance has
/// asked for (timers, calls, queues) it hears of itself. They share the books.
pub struct VmHandle {
    first: Rc<VmCell>,
    others: Box<[Rc<VmCell>]>,
}

impl VmHandle {
    /// A VM with its first instances. `None` when there is none.
    pub fn new(
        spec: &Arc<VmSpec>,
        host: &Rc<dyn PluginHost>,
        instances: Vec<Box<Instance>>,
    ) -> Option<Rc<Self>> {
        let books = Rc::new(Books::new(spec));
        let mut cells =
            instances.into_iter().map(|instance| VmCell::new(spec, host, &books, instance, false));
        Some(Rc::new(Self { first: cells.next()?, others: cells.collect() }))
    }

    /// The cells of its instances.
    fn cells(&self) -> impl Iterator<Item = &Rc<VmCell>> {
        std::iter::once(&self.first).chain(&*self.others)
    }

    /// Where calls give way: the instance that has the least to do.
    pub fn least_busy(&self) -> Option<Rc<VmCell>> {
        if !self.first.is_preemptible() {
            return None;
        }
        self.cells().min_by_key(|cell| cell.load()).cloned()
    }

    /// Takes a new instance in the place of one that failed.
    pub fn replace(&self, instance: Box<Instance>) {
        self.cells().find(|cell| cell.is_gone()).unwrap_or(&self.first).replace(instance);
    }

    /// Does what the guests asked for while they were started, timers first of all. Called when it is published.
    pub fn run_outgoing(&self) {
        self.cells().for_each(|cell| cell.run_outgoing());
    }

    /// Tells the guests which clusters there are.
    pub fn set_clusters(&self, clusters: &Arc<BTreeSet<Box<str>>>) {
        self.cells().for_each(|cell| cell.set_clusters(clusters));
    }
}

impl Deref for VmHandle {
    type Target = VmCell;

    fn deref(&self) -> &VmCell {
        &self.first
    }
}

impl Drop for VmHandle {
    fn drop(&mut self) {
        self.cells().for_each(|cell| cell.shut_down());
    }
}

/// A VM on one worker.
pub struct VmCell {
    spec: Arc<VmSpec>,
    host: Rc<dyn PluginHost>,
    /// The instance; none between a fault and the arrival of the next one.
    instance: RefCell<Option<Box<Instance>>>,
    /// How many instances there have been: a context belongs to one of them.
    generation: Cell<u64>,
    /// gRPC calls that are under way, by token.
    grpc: RefCell<HashMap<u32, events::Grpc>>,
    /// What is to be done that was asked for, and by which instance.
    errands: Errands<(u64, Outgoing)>,
    /// Where the VM hears of queues, once it wants to.
    mailbox: RefCell<Option<events::Mailbox>>,
    /// Whether its plugins have been told to end.
    ending: Cell<bool>,
    /// Told when they have.
    ended: Notify,
    /// What it may use over time, together with the other instances of the VM.
    books: Rc<Books>,
    /// The clusters that there are.
    clusters: RefCell<Arc<BTreeSet<Box<str>>>>,
    /// Whether it is that of one stream, and ends with it.
    of_stream: bool,
    /// What it has where its calls give way.
    lane: Option<Lane>,
    me: Weak<VmCell>,
}

/// A filter cannot be called: its instance has just ended, or there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

impl VmCell {
    fn new(
        spec: &Arc<VmSpec>,
        host: &Rc<dyn PluginHost>,
        books: &Rc<Books>,
        mut instance: Box<Instance>,
        of_stream: bool,
    ) -> Rc<Self> {
        let clusters = RefCell::new(Arc::clone(&instance.vm().clusters));
        let lane = spec.is_preemptible().then(|| Lane::new(host.turns().clone(), &mut instance));
        Rc::new_cyclic(|me| Self {
            spec: Arc::clone(spec),
            host: Rc::clone(host),
            instance: RefCell::new(Some(instance)),
            generation: Cell::new(0),
            grpc: RefCell::default(),
            errands: Errands::default(),
            mailbox: RefCell::default(),
            ending: Cell::new(false),
            ended: Notify::new(),
            books: Rc::clone(books),
            clusters,
            of_stream,
            lane,
            me: me.clone(),
        })
    }

    /// What it is made of.
    pub fn spec(&self) -> &Arc<VmSpec> {
        &self.spec
    }

    /// Takes a new instance after a fault. Its timers start.
    fn replace(&self, mut instance: Box<Instance>) {
        if self.is_calling() {
            return self.host.retire(instance);
        }
        if let Some(lane) = &self.lane {
            lane.welcome(&mut instance);
        }
        self.generation.set(self.generation.get() + 1);
        let old = self.instance.borrow_mut().replace(instance);
        if let Some(old) = old {
            self.host.retire(old);
        }
        self.run_outgoing();
    }

    /// Does what the guest asked for while it was started, timers first of all. Called when it is published.
    fn run_outgoing(&self) {
        let outgoing = self.instance.borrow_mut().as_mut().map(|instance| instance.take_outgoing());
        self.carry_out(outgoing.unwrap_or_default());
    }

    /// Tells the guest which clusters there are.
    fn set_clusters(&self, clusters: &Arc<BTreeSet<Box<str>>>) {
        *self.clusters.borrow_mut() = Arc::clone(clusters);
        if self.keep_clusters(clusters) {
            return;
        }
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
        let spent = instance.take_spent();
        self.books.meter.bill(spent);
        self.books.meter.bill_long(instance.take_long());
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
                self.condemn(instance, &fault, spent);
                Err(Unavailable)
            }
        }
    }

    /// Looks at the instance of a generation, or notes something in it, without entering the guest: there is nothing to be
    /// billed, and nothing to be carried out.
    ///
    /// # Errors
    /// When there is no such instance, or not any more.
    fn look<T>(&self, generation: u64, look: impl FnOnce(&mut Instance) -> T) -> Result<T, Unavailable> {
        if generation != self.generation.get() {
            return Err(Unavailable);
        }
        self.instance.borrow_mut().as_mut().map(|instance| look(instance)).ok_or(Unavailable)
    }

    /// Puts an end to an instance: its streams are woken to meet their failure policy, and a new one is asked for.
    fn condemn(&self, instance: Option<Box<Instance>>, fault: &Fault, spent: u64) {
        if self.of_stream {
            return self.condemn_of_stream(instance, fault, spent);
        }
        let plugin = self.spec.filters.first().map_or("", |spec| &*spec.plugin);
        let (digest, kind) = (self.spec.digest, fault.kind.as_str());
        self.tell_outside(plugin, fault);
        if self.ending.get() {
            tracing::error!(plugin, %digest, kind, "a plugin failed as it ended: {}", fault.message);
        } else {
            tracing::error!(plugin, %digest, kind, "a plugin failed and is started anew: {}", fault.message);
        }
        self.let_go(instance);
        if !self.ending.get() {
            self.note_fault(if self.is_preemptible() { spent / lane::LENIENCE } else { spent });
            self.host.condemned(&self.spec);
        }
    }

    fn tell_outside(&self, plugin: &str, fault: &Fault) {
        if let Some(outside) = &self.spec.services.outside {
            outside.failed(plugin, fault.kind, &fault.message);
        }
    }

    /// An instance is over: its calls are given up, and what waits for it is woken.
    fn let_go(&self, instance: Option<Box<Instance>>) {
        self.generation.set(self.generation.get() + 1);
        self.grpc.take();
        if let Some(lane) = &self.lane {
            lane.clear();
        }
        if let Some(mut instance) = instance {
            instance.vm().take_streams_back();
            instance.vm().streams.values().for_each(|stream| stream.wake());
            self.host.retire(instance);
        }
        self.ended.notify_one();
    }

    /// The last stream is gone and no snapshot holds the VM: its plugins are told to end. One that holds its end back
    /// may go on with its timers and calls until it says that it is done.
    fn shut_down(&self) {
        if self.of_stream {
            return self.drop_instance();
        }
        self.ending.set(true);
        if self.is_preemptible() {
            return self.shut_down_in_turn();
        }
        let generation = self.generation();
        for (root, spec) in (1..).zip(&self.spec.filters) {
            // A fault ends the instance, and with it all of them.
            let _ = self.with(generation, |instance| {
                let done = instance.call(root, spec.cpu, |callbacks| &callbacks.proxy_on_done, (root,))?;
                if done == Some(0) {
                    if let Some(root) = instance.root(root) {
                        root.pending = true;
                    }
                    return Ok(());
                }
                delete(instance, root, spec.cpu)
            });
        }
        match self.me.upgrade() {
            Some(me) if self.is_pending() => self.host.linger(me),
            _ => self.end(),
        }
    }

    /// A plugin that held back its end has said that it is done.
    fn done(&self, root: u32) {
        let Some(limit) = self.limit(root) else { return };
        if self.is_preemptible() {
            return self.delete_in_turn(root, limit);
        }
        // As above.
        let _ = self.with(self.generation(), |instance| delete(instance, root, limit));
        if self.ending.get() && !self.is_pending() {
            self.ended.notify_one();
        }
    }

    fn is_pending(&self) -> bool {
        let mut instance = self.instance.borrow_mut();
        instance.as_mut().is_some_and(|instance| instance.vm().roots.iter().any(|root| root.pending))
    }

    /// Ready when all plugins have ended.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Ends what has not ended, and the instance.
    pub fn end(&self) {
        if self.is_preemptible() {
            if self.end_in_turn() {
                return;
            }
        } else {
            for (root, spec) in (1..).zip(&self.spec.filters) {
                // As above.
                let _ = self.with(self.generation(), |instance| delete(instance, root, spec.cpu));
            }
        }
        let instance = self.instance.take();
        if instance.is_some() {
            self.let_go(instance);
        }
    }

    /// The CPU budget of the calls into a root context. Root contexts are numbered from 1.
    fn limit(&self, root: u32) -> Option<Duration> {
        let place = (root as usize).checked_sub(1)?;
        self.spec.filters.get(place).map(|spec| spec.cpu)
    }
}

/// Ends a root context, once.
fn delete(instance: &mut Instance, root: u32, limit: Duration) -> Result<(), Fault> {
    let Some(found) = instance.root(root).filter(|root| !root.deleted) else { return Ok(()) };
    (found.deleted, found.pending, found.tick) = (true, false, None);
    instance.call(root, limit, |callbacks| &callbacks.proxy_on_delete, (root,)).map(drop)
}

impl Drop for VmCell {
    fn drop(&mut self) {
        if let Some(instance) = self.instance.take() {
            self.host.retire(instance);
        }
    }
}
