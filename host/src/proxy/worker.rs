//! A worker: a thread with a runtime of its own, which owns its sockets, its plugin instances and its upstream
//! connections. It takes its orders from the control plane, one at a time, and shares nothing else.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::TcpListener;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::allocator;
use crate::clock::Timers;
use crate::drain::Drain;
use crate::net::relay::Scratch;
use crate::net::splice::Pipes;
use crate::overload::{BEAT, Overload};
use crate::plugin::filter::{VmCell, VmSpec};
use crate::plugin::instance::Instance;
use crate::proxy::accept::Accepting;
use crate::proxy::live::Live;
use crate::proxy::local::{Build, Local, LocalListener};
use crate::proxy::plugin_host::WorkerHost;
use crate::snapshot::{Snapshot, SocketKey};
use crate::telemetry::metrics::use_worker_shard;
use crate::upstream::clients::Clients;

/// An order to a worker.
pub enum Order {
    /// Serve this snapshot from now on.
    Publish(Publish),
    /// Take a new instance in the place of one that failed.
    Replace {
        /// The VM.
        vm: u64,
        /// The instance.
        instance: Box<Instance>,
    },
    /// Give up what idles under overload, and, when it says so, the streams that hold the most.
    Shed {
        /// Whether streams are to be reset.
        reset: bool,
    },
    /// Stop accepting, let finish what runs, and end, after so long at the latest.
    Drain(Duration),
}

/// A snapshot and what a worker needs for it.
pub struct Publish {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// Instances of the VMs that are new.
    pub instances: HashMap<u64, Vec<Box<Instance>>>,
    /// Sockets of the listeners that are new; a listener may have several.
    pub sockets: Vec<(SocketKey, TcpListener)>,
    /// Told once the snapshot is in force.
    pub done: oneshot::Sender<()>,
}

/// What a worker tells the control plane.
pub enum Report {
    /// The instance of a VM failed: a new one is wanted.
    Condemned {
        /// Which worker.
        worker: usize,
        /// Which VM.
        vm: Arc<VmSpec>,
    },
    /// The instance of a stream failed, and ended with it.
    StreamFailed {
        /// Of which VM.
        vm: Arc<VmSpec>,
    },
}

/// What is to be dropped off the workers.
pub enum Retired {
    /// A snapshot.
    Snapshot(Arc<Snapshot>),
    /// An instance.
    Instance(Box<Instance>),
}

/// How the control plane reaches a worker.
pub struct WorkerHandle {
    /// Orders.
    pub orders: mpsc::UnboundedSender<Order>,
    /// The thread; it ends after a drain.
    pub thread: std::thread::JoinHandle<()>,
}

/// What a worker is started with.
pub struct StartWorker {
    /// Its number.
    pub index: usize,
    /// The load of the process.
    pub overload: Arc<Overload>,
    /// Where its reports go.
    pub reports: mpsc::UnboundedSender<Report>,
    /// Where it leaves what is to be dropped.
    pub reaper: Sender<Retired>,
}

impl StartWorker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(self) -> std::io::Result<WorkerHandle> {
        let (orders, received) = mpsc::unbounded_channel();
        let index = self.index;
        let thread = std::thread::Builder::new().name(format!("weir-worker-{index}")).spawn(move || {
            use_worker_shard(index);
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(Worker::new(self).run(received)),
                Err(error) => tracing::error!(index, %error, "a worker has no runtime and does not serve"),
            }
        })?;
        Ok(WorkerHandle { orders, thread })
    }
}

/// How long a plugin may hold back its end.
const LINGER: Duration = Duration::from_secs(30);

/// How long plugins have to hear that the worker ends, however long the drain has taken.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often idle upstream connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// When so many connections are gone, or have fallen silent, and more than are left, their memory is given back.
const FLOOD: u32 = 100;

/// The streams that are reset in one go under overload.
const MOST_CUT: usize = 50;

/// Shows that the worker comes round.
async fn beat(overload: Arc<Overload>, index: usize) {
    let mut rounds = tokio::time::interval(BEAT);
    loop {
        rounds.tick().await;
        overload.beat(index);
    }
}

/// A worker.
pub struct Worker {
    /// Its number.
    pub index: usize,
    /// Its timers.
    pub timers: Rc<Timers>,
    /// Its drain.
    pub drain: Rc<Drain>,
    /// The buffer that its relays share.
    pub scratch: Scratch,
    /// The pipes through which the kernel moves bulk.
    pub pipes: Pipes,
    /// The load of the process.
    pub overload: Arc<Overload>,
    /// The exchanges that are under way.
    pub live: Rc<Live>,
    /// The clients that have connections of their own to endpoints.
    pub clients: Rc<Clients>,
    /// The snapshot in force.
    local: RefCell<Option<Rc<Local>>>,
    /// Listeners that are gone, as they were, while the last of their connections and requests are served.
    departed: RefCell<HashMap<SocketKey, Rc<Local>>>,
    sockets: RefCell<Vec<(SocketKey, Accepting)>>,
    /// VMs whose plugins hold back their end.
    lingering: RefCell<Vec<JoinHandle<()>>>,
    host: Rc<WorkerHost>,
    reaper: Sender<Retired>,
}

impl Worker {
    fn new(start: StartWorker) -> Rc<Self> {
        let timers = Rc::<Timers>::default();
        Rc::new_cyclic(|me: &Weak<Self>| Self {
            index: start.index,
            drain: Rc::new(Drain::new(Rc::clone(&timers))),
            timers,
            scratch: Scratch::default(),
            pipes: Pipes::default(),
            overload: start.overload,
            live: Rc::default(),
            clients: Rc::default(),
            local: RefCell::default(),
            departed: RefCell::default(),
            sockets: RefCell::default(),
            lingering: RefCell::default(),
            host: Rc::new(WorkerHost::new(me.clone(), start.index, start.reports, start.reaper.clone())),
            reaper: start.reaper,
        })
    }

    /// The snapshot in force.
    pub fn local(&self) -> Option<Rc<Local>> {
        self.local.borrow().clone()
    }

    /// The listener of a socket, in the snapshot in force, or as it was before it went: what waited to be accepted then
    /// was let in; and its snapshot.
    pub fn listener_at(&self, key: &SocketKey) -> Option<(Rc<Local>, Rc<LocalListener>)> {
        let mut local = self.local()?;
        if local.listener_at(key).is_none() {
            local = Rc::clone(self.departed.borrow().get(key)?);
        }
        let listener = Rc::clone(local.listener_at(key)?);
        Some((local, listener))
    }

    /// The HTTP listener of a socket, in the snapshot in force, or as it was before it went; and its snapshot.
    pub fn http_listener(&self, key: &SocketKey) -> Option<(Rc<Local>, Rc<LocalListener>)> {
        let local = self.local()?;
        let local = if local.http_listener(key).is_some() {
            local
        } else {
            Rc::clone(self.departed.borrow().get(key)?)
        };
        let listener = Rc::clone(local.http_listener(key)?);
        Some((local, listener))
    }

    /// Whether the HTTP connections of a socket are to end, with what was asked for on them.
    pub fn is_leaving(&self, key: &SocketKey) -> bool {
        self.drain.started()
            || self.local.borrow().as_ref().is_none_or(|local| local.http_listener(key).is_none())
    }

    async fn run(self: Rc<Self>, mut orders: mpsc::UnboundedReceiver<Order>) {
        let sweeper = Rc::clone(&self.timers);
        tokio::task::spawn_local(async move { sweeper.run().await });
        tokio::task::spawn_local(Rc::clone(&self).sweep_connections());
        tokio::task::spawn_local(beat(Arc::clone(&self.overload), self.index));
        while let Some(order) = orders.recv().await {
            match order {
                Order::Publish(publish) => self.publish(publish),
                Order::Replace { vm, instance } => {
                    let local = self.local();
                    let cell = local.as_ref().and_then(|local| Some((local, local.vms.get(&vm)?)));
                    match cell {
                        Some((local, cell)) => {
                            cell.replace(instance);
                            // It may have been built before this snapshot was.
                            cell.set_clusters(&local.snapshot.cluster_names);
                        }
                        // The VM is not used any more.
                        None => self.retire(Retired::Instance(instance)),
                    }
                }
                Order::Shed { reset } => self.shed(reset),
                Order::Drain(timeout) => {
                    self.end(timeout).await;
                    self.overload.ended(self.index);
                    return;
                }
            }
        }
    }

    /// Wakes everybody to look at what is given up, and chooses the streams that are.
    fn shed(&self, reset: bool) {
        self.overload.sheds(self.index);
        let cut = if reset { self.live.cut_largest(MOST_CUT) } else { 0 };
        if cut > 0 {
            tracing::warn!(
                worker = self.index,
                streams = cut,
                "under overload, the largest streams are reset"
            );
        }
        self.timers.wake_all();
    }

    /// Drops upstream connections that nobody will use again, and gives memory back when most clients are gone or silent.
    async fn sweep_connections(self: Rc<Self>) {
        let mut rounds = tokio::time::interval(SWEEP);
        let (mut most, mut least) = (0, 0);
        loop {
            rounds.tick().await;
            let (open, silent) = (self.overload.connections(), self.overload.silent());
            (most, least) = (most.max(open), least.min(silent));
            let (gone, fallen) = (most - open, silent - least);
            if (gone >= FLOOD && gone > open) || (fallen >= FLOOD && fallen > open.saturating_sub(silent)) {
                (most, least) = (open, silent);
                allocator::give_back();
            }
            if let Some(local) = self.local() {
                local.clusters.iter().for_each(|cluster| cluster.sweep());
            }
        }
    }

    /// Puts a snapshot in force: what it has new begins, what it has no more ends with its last stream.
    fn publish(self: &Rc<Self>, publish: Publish) {
        let Publish { snapshot, instances, sockets, done } = publish;
        let before = self.local.borrow().clone();
        let build = Build {
            before: before.as_deref(),
            instances,
            host: Rc::clone(&self.host) as Rc<_>,
            timers: Rc::clone(&self.timers),
            clients: Rc::clone(&self.clients),
            reaper: self.reaper.clone(),
        };
        let local = build.run(snapshot);
        let new = local
            .vms
            .values()
            .filter(|vm| before.as_ref().is_none_or(|before| !before.vms.contains_key(&vm.spec().id)));
        let new: Vec<_> = new.cloned().collect();
        self.local.replace(Some(Rc::clone(&local)));
        // Timers start now that the version serves.
        new.iter().for_each(|vm| vm.run_outgoing());
        if let Some(before) = before {
            self.let_depart(&before, &local);
        }
        self.sockets.borrow_mut().retain(|(key, _)| local.listener_at(key).is_some());
        for (key, socket) in sockets {
            let accepting = Accepting::start(Rc::clone(self), key.clone(), socket);
            self.sockets.borrow_mut().push((key, accepting));
        }
        // Whoever published may have stopped waiting.
        let _ = done.send(());
    }

    /// Keeps listeners that are gone for as long as a drain may take: what waits to be accepted is served, HTTP connections
    /// that are idle are closed, and the others with the answer to what was asked for on them.
    fn let_depart(self: &Rc<Self>, before: &Rc<Local>, now: &Local) {
        let mut departed = self.departed.borrow_mut();
        departed.retain(|key, _| now.http_listener(key).is_none());
        let keys = before.listeners.iter().map(|local| local.listener.socket_key());
        let gone: Vec<SocketKey> = keys
            .filter(|key| {
                let http = before.http_listener(key).is_some() && now.http_listener(key).is_none();
                http || now.listener_at(key).is_none()
            })
            .collect();
        if gone.is_empty() {
            return;
        }
        departed.extend(gone.iter().map(|key| (key.clone(), Rc::clone(before))));
        self.timers.wake_all();
        let (worker, before) = (Rc::downgrade(self), Rc::downgrade(before));
        let time = now.snapshot.config.sections.drain_timeout;
        tokio::task::spawn_local(async move {
            tokio::time::sleep(time).await;
            if let Some(worker) = worker.upgrade() {
                let same = |local: &Rc<Local>| Weak::ptr_eq(&Rc::downgrade(local), &before);
                worker.departed.borrow_mut().retain(|_, local| !same(local));
            }
        });
    }

    /// Keeps a VM whose plugins hold back their end, until they have ended.
    pub fn linger(&self, vm: Rc<VmCell>) {
        let mut lingering = self.lingering.borrow_mut();
        lingering.retain(|task| !task.is_finished());
        lingering.push(tokio::task::spawn_local(async move {
            let ended = tokio::time::timeout(LINGER, vm.ended()).await;
            if ended.is_err() {
                let plugin = vm.spec().filters.first().map_or("", |spec| &*spec.plugin);
                tracing::warn!(plugin, "a plugin held back its end for {LINGER:?} and is ended");
            }
            vm.end();
        }));
    }

    /// Leaves something to be dropped off the worker.
    pub fn retire(&self, retired: Retired) {
        // Nobody takes it any more only when the process ends.
        let _ = self.reaper.send(retired);
    }

    async fn end(&self, timeout: Duration) {
        let deadline = tokio::time::Instant::now() + timeout;
        let sockets = self.sockets.take();
        for (_, accepting) in sockets {
            accepting.close().await;
        }
        self.drain.start();
        let finished = tokio::time::timeout(timeout, self.drain.finished()).await.is_ok();
        if !finished {
            self.drain.end();
            let cut = self.drain.participants();
            tracing::warn!(
                worker = self.index,
                connections = cut,
                "the drain is over; what still runs is cut"
            );
            // What is cut hears of it, and its filters are told.
            tokio::task::yield_now().await;
        }
        self.local.replace(None);
        self.departed.take();
        // Plugins that hold back their end may use what is left of the time, and those that are told of it at their turn
        // have a moment in any case.
        let all = async {
            loop {
                let lingering = self.lingering.take();
                if lingering.is_empty() {
                    return;
                }
                for task in lingering {
                    // One that panicked has ended, too.
                    let _ = task.await;
                }
            }
        };
        let deadline = deadline.max(tokio::time::Instant::now() + LAST_WORDS);
        let _ = tokio::time::timeout_at(deadline, all).await;
    }
}
