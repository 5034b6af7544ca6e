//! The calls of an instance that give way. They wait for each other in the instance's own queue, and a task works
//! through that: a stream that ends cuts none of them. Whoever is to hear what came of a call is told by a channel,
//! and hears that it is closed when the instance has ended.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::yield_now;
use wasmtime::{TypedFunc, WasmParams, WasmResults};

use crate::plugin::abi::Callbacks;
use crate::plugin::fiber::{Fiber, Turns};
use crate::plugin::filter::{Unavailable, VmCell};
use crate::plugin::instance::{Fault, Instance};
use crate::plugin::quotas::Quota;
use crate::plugin::spec::FilterSpec;
use crate::plugin::stream::SharedStream;
use crate::plugin::vm::{Access, Intents, StreamContext, Streams, add_stream};

/// By how much less a call that ended its instance counts for the breaker than one that had held everybody up.
pub(super) const LENIENCE: u64 = 20;

/// A callback of the table.
pub type Which<P, R> = fn(&Callbacks) -> &Option<TypedFunc<P, R>>;

/// What came of a call about a stream.
#[derive(Debug, Default)]
pub struct Returned {
    /// What the callback returned; `None` when there was no stream any more to tell of.
    pub action: Option<u32>,
    /// What the guest asked for.
    pub intents: Intents,
    /// The CPU time that it used, in nanoseconds.
    pub spent: u64,
}

/// Something to do with an instance, at its turn.
type Job = Box<dyn for<'a> FnOnce(&'a mut Instance) -> Work<'a>>;

/// A job that has begun. A fault ends the instance.
type Work<'a> = Pin<Box<dyn Future<Output = Result<(), Fault>> + 'a>>;

/// What a VM has whose calls give way.
pub(super) struct Lane {
    fiber: Arc<Fiber>,
    turns: Turns,
    callbacks: RefCell<Callbacks>,
    /// What waits, each with the generation that it is meant for.
    queue: RefCell<VecDeque<(u64, Job)>>,
    /// Whether a task works through the queue.
    driven: Cell<bool>,
    /// Whether the instance is in a call: then its streams are with the fiber, whenever that has given way.
    calling: Cell<bool>,
    /// Who is to look again when the call has ended.
    after: RefCell<Vec<Waker>>,
    /// Clusters that the guest is to learn of when the call has ended.
    clusters: RefCell<Option<Arc<BTreeSet<Box<str>>>>>,
    /// Whether the instance is to go when nothing waits any more.
    over: Cell<bool>,
}

impl Lane {
    pub(super) fn new(turns: Turns, instance: &mut Instance) -> Self {
        let fiber = Fiber::new(Arc::clone(&instance.vm().services.pulse), turns.clone());
        let lane = Self {
            fiber,
            turns,
            callbacks: RefCell::default(),
            queue: RefCell::default(),
            driven: Cell::new(false),
            calling: Cell::new(false),
            after: RefCell::default(),
            clusters: RefCell::default(),
            over: Cell::new(false),
        };
        lane.welcome(instance);
        lane
    }

    /// Has the calls of an instance give way from now on.
    pub(super) fn welcome(&self, instance: &mut Instance) {
        instance.vm().fiber = Some(Arc::clone(&self.fiber));
        *self.callbacks.borrow_mut() = instance.callbacks().clone();
    }

    /// An instance is gone: nobody gets an answer from it.
    pub(super) fn clear(&self) {
        // Whoever is told of it may come back here.
        let queue = self.queue.take();
        drop(queue);
    }

    /// Works on one job until it is done. A panic is a fault of the instance.
    async fn work(&self, job: Job, instance: &mut Instance) -> Result<(), Fault> {
        let mut work = match catch_unwind(AssertUnwindSafe(|| job(instance))) {
            Ok(work) => work,
            Err(_) => return Err(Fault::of_the_host()),
        };
        poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(polled) => polled,
            Err(_) => Poll::Ready(Err(Fault::of_the_host())),
        })
        .await
    }
}

impl VmCell {
    /// Whether its calls give way.
    #[inline]
    pub fn is_preemptible(&self) -> bool {
        self.lane.is_some()
    }

    /// Whether a call is under way, which has given way: what it asks for is not to be carried out before it has ended.
    pub fn is_calling(&self) -> bool {
        self.lane.as_ref().is_some_and(|lane| lane.calling.get())
    }

    /// Whether it has no instance.
    pub(super) fn is_gone(&self) -> bool {
        !self.is_calling() && self.instance.borrow().is_none()
    }

    /// Wakes somebody when the call that is under way has ended.
    pub fn after_the_call(&self, waker: &Waker) {
        if let Some(lane) = &self.lane {
            lane.after.borrow_mut().push(waker.clone());
        }
    }

    /// How much it has to do: the less, the better for a stream that begins.
    pub(super) fn load(&self) -> (bool, usize, usize) {
        let waiting = self.lane.as_ref().map_or(0, |lane| lane.queue.borrow().len());
        (self.is_gone(), waiting + usize::from(self.is_calling()), self.streams(|streams, _| streams.len()))
    }

    fn streams<T>(&self, work: impl FnOnce(&mut Streams, &mut u32) -> T) -> T {
        match (&self.lane, &mut *self.instance.borrow_mut()) {
            (_, Some(instance)) => {
                let vm = instance.vm();
                work(&mut vm.streams, &mut vm.last_id)
            }
            (Some(lane), None) => lane.fiber.with_streams(work),
            (None, None) => work(&mut Streams::default(), &mut 0),
        }
    }

    /// The context of a stream, in a call or between two; `None` when it has ended.
    ///
    /// # Errors
    /// When its instance is gone.
    #[inline]
    pub fn with_stream<T>(
        &self,
        generation: u64,
        id: u32,
        work: impl FnOnce(&mut StreamContext) -> T,
    ) -> Result<Option<T>, Unavailable> {
        if self.is_preemptible() {
            if generation != self.generation() || self.is_gone() {
                return Err(Unavailable);
            }
            return Ok(self.streams(|streams, _| streams.get_mut(&id).map(work)));
        }
        self.look(generation, |instance| instance.stream(id).map(work))
    }

    /// Whether the guest exports a callback. One whose instance is gone counts as if it did, so that its failure is met.
    pub fn exports<P, R>(&self, generation: u64, which: Which<P, R>) -> bool {
        match &self.lane {
            Some(_) if generation != self.generation() => true,
            Some(lane) => which(&lane.callbacks.borrow()).is_some(),
            None => self.look(generation, |instance| instance.exports(which)).unwrap_or(true),
        }
    }

    /// Makes a context for a stream that begins; the guest is told at its turn. `None` when it has as many as it may.
    ///
    /// # Errors
    /// When there is no instance.
    pub fn begin_stream(
        &self,
        (root, spec): (u32, &FilterSpec),
        place: usize,
        stream: SharedStream,
    ) -> Result<Option<(u64, u32)>, Unavailable> {
        if self.is_gone() {
            return Err(Unavailable);
        }
        let context = StreamContext::new(root, place, spec.grants.rights, stream);
        let roots = self.spec.filters.len();
        let added = self.streams(|streams, last_id| {
            (streams.len() < spec.streams).then(|| add_stream(streams, last_id, roots, context))
        });
        let Some(id) = added else {
            self.spec.services.refusals(&spec.plugin, &spec.name).refuse(Quota::Streams);
            return Ok(None);
        };
        let generation = self.generation();
        self.call_later(generation, id, spec.cpu, |callbacks| &callbacks.proxy_on_context_create, (id, root));
        Ok(Some((generation, id)))
    }

    /// Calls the guest about a stream at its turn. `prepare` readies the context just before, and gives what the callback
    /// is told; `conclude` is given what the callback has returned.
    pub fn call_about<P>(
        &self,
        generation: u64,
        (id, limit): (u32, Duration),
        which: Which<P, u32>,
        prepare: impl FnOnce(&mut StreamContext) -> P + 'static,
        conclude: impl FnOnce(&mut StreamContext, u32) + 'static,
    ) -> oneshot::Receiver<Returned>
    where
        P: WasmParams + Sync + 'static,
    {
        let (returned, receiver) = oneshot::channel();
        let work = async move |instance: &mut Instance| {
            // A stream that has ended is told of that, and of nothing else.
            if returned.is_closed() {
                return Ok(());
            }
            let Some(context) = instance.stream(id) else {
                let _ = returned.send(Returned::default());
                return Ok(());
            };
            let params = prepare(context);
            let action = instance.call_on_fiber(id, limit, which, params).await?;
            let intents = instance.stream(id).map(|context| {
                conclude(context, action.unwrap_or(0));
                std::mem::take(&mut context.intents)
            });
            let (intents, spent) = (intents.unwrap_or_default(), instance.spent());
            // The stream may have ended meanwhile.
            let _ = returned.send(Returned { action, intents, spent });
            Ok(())
        };
        self.queue(generation, work);
        receiver
    }

    /// Calls the guest at its turn, whatever it says.
    pub fn call_later<P, R>(
        &self,
        generation: u64,
        context: u32,
        limit: Duration,
        which: Which<P, R>,
        params: P,
    ) where
        P: WasmParams + Sync + 'static,
        R: WasmResults + Sync + 'static,
    {
        let work = async move |instance: &mut Instance| {
            instance.call_on_fiber(context, limit, which, params).await.map(drop)
        };
        self.queue(generation, work);
    }

    /// Ends a stream for the guest, at its turn: done, log, delete. `trial`: it was the one that tried whether the VM
    /// works again.
    pub fn end_stream(&self, generation: u64, id: u32, limit: Duration, trial: bool) {
        let me = self.me.clone();
        let work = async move |instance: &mut Instance| {
            instance.call_on_fiber(id, limit, |callbacks| &callbacks.proxy_on_done, (id,)).await?;
            set_access(instance, id, Access::LOG);
            instance.call_on_fiber(id, limit, |callbacks| &callbacks.proxy_on_log, (id,)).await?;
            set_access(instance, id, Access::NONE);
            instance.call_on_fiber(id, limit, |callbacks| &callbacks.proxy_on_delete, (id,)).await?;
            instance.delete_stream(id);
            if let Some(me) = me.upgrade().filter(|_| trial) {
                me.trial_passed();
            }
            Ok(())
        };
        self.queue(generation, work);
    }

    /// Has a job done at its turn. One for an instance that is gone is dropped.
    pub(super) fn queue(
        &self,
        generation: u64,
        work: impl AsyncFnOnce(&mut Instance) -> Result<(), Fault> + 'static,
    ) {
        let (Some(lane), Some(me)) = (&self.lane, self.me.upgrade()) else { return };
        if generation != self.generation() || self.is_gone() {
            return;
        }
        let job: Job = Box::new(move |instance| Box::pin(work(instance)));
        lane.queue.borrow_mut().push_back((generation, job));
        if !lane.driven.replace(true) {
            tokio::task::spawn_local(me.drive());
        }
    }

    /// Works through the queue. The instance is the task's own as long as a call is under way: should the task be cut
    /// off, by the end of the worker, the instance ends with it.
    async fn drive(self: Rc<Self>) {
        let Some(lane) = &self.lane else { return };
        loop {
            let next = lane.queue.borrow_mut().pop_front();
            let Some((generation, job)) = next else { break };
            let turn = lane.turns.take().await;
            if generation != self.generation() {
                continue;
            }
            let Some(mut instance) = self.instance.take() else { continue };
            lane.calling.set(true);
            let worked = lane.work(job, &mut instance).await;
            lane.calling.set(false);
            self.settle(instance, worked);
            lane.after.take().into_iter().for_each(Waker::wake);
            if lane.fiber.slices() > 0 {
                // As between two slices: only one of them before the worker looks at its sockets.
                yield_now().await;
            }
            drop(turn);
        }
        lane.driven.set(false);
        self.rest();
    }

    /// A job is done: it is billed, and the instance is here again, or ends.
    fn settle(&self, mut instance: Box<Instance>, worked: Result<(), Fault>) {
        let spent = instance.take_spent();
        self.books.meter.bill(spent);
        if let Err(fault) = worked {
            return self.condemn(Some(instance), &fault, spent);
        }
        if let Some(clusters) = self.lane.as_ref().and_then(|lane| lane.clusters.take()) {
            instance.vm().clusters = clusters;
        }
        let outgoing = instance.take_outgoing();
        *self.instance.borrow_mut() = Some(instance);
        self.carry_out(outgoing);
    }

    /// Nothing waits any more.
    fn rest(&self) {
        if self.lane.as_ref().is_some_and(|lane| lane.over.get()) {
            self.end();
        } else if self.ending.get() && !self.is_pending() {
            self.ended.notify_one();
        }
    }

    /// Keeps clusters for a guest that is in a call. False when it is in none.
    pub(super) fn keep_clusters(&self, clusters: &Arc<BTreeSet<Box<str>>>) -> bool {
        match &self.lane {
            Some(lane) if lane.calling.get() => {
                *lane.clusters.borrow_mut() = Some(Arc::clone(clusters));
                true
            }
            Some(_) | None => false,
        }
    }

    /// Tells the plugins to end, at their turn, and has the worker wait for that.
    pub(super) fn shut_down_in_turn(&self) {
        let filters = self.spec.filters.clone();
        let work = async move |instance: &mut Instance| {
            for (root, spec) in (1..).zip(&filters) {
                let done = instance.call_on_fiber(root, spec.cpu, |c| &c.proxy_on_done, (root,)).await?;
                match instance.root(root) {
                    Some(root) if done == Some(0) => root.pending = true,
                    _ => delete(instance, root, spec.cpu).await?,
                }
            }
            Ok(())
        };
        self.queue(self.generation(), work);
        match self.me.upgrade() {
            Some(me) if !self.is_gone() => self.host.linger(me),
            _ => self.end(),
        }
    }

    /// Ends a root context at its turn, once.
    pub(super) fn delete_in_turn(&self, root: u32, limit: Duration) {
        let work = async move |instance: &mut Instance| delete(instance, root, limit).await;
        self.queue(self.generation(), work);
    }

    /// Ends what has not ended, at its turn, and then the instance. True when that is still to come.
    pub(super) fn end_in_turn(&self) -> bool {
        let Some(lane) = self.lane.as_ref().filter(|lane| !lane.over.replace(true)) else { return false };
        if self.is_gone() || (!lane.driven.get() && self.is_over()) {
            return false;
        }
        for (root, spec) in (1..).zip(&self.spec.filters) {
            self.delete_in_turn(root, spec.cpu);
        }
        true
    }

    /// Whether all of its plugins have ended.
    fn is_over(&self) -> bool {
        let mut instance = self.instance.borrow_mut();
        instance.as_mut().is_some_and(|instance| instance.vm().roots.iter().all(|root| root.deleted))
    }
}

/// Ends a root context, once.
async fn delete(instance: &mut Instance, root: u32, limit: Duration) -> Result<(), Fault> {
    let Some(found) = instance.root(root).filter(|root| !root.deleted) else { return Ok(()) };
    (found.deleted, found.pending, found.tick) = (true, false, None);
    instance.call_on_fiber(root, limit, |callbacks| &callbacks.proxy_on_delete, (root,)).await.map(drop)
}

/// What of a stream may be looked at from now on.
pub fn set_access(instance: &mut Instance, id: u32, access: Access) {
    if let Some(context) = instance.stream(id) {
        context.access = access;
    }
}
