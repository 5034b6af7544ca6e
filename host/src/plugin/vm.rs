//! What the host keeps for one VM: the data of its wasmtime store.
//!
//! Host functions act on it and nothing else. It is `Send`: an instance is built off the workers and handed
//! over. What a host function cannot do while the guest is running is left in [`Vm::outbox`], or as an intent in
//! a context, and carried out after the guest has returned.

mod outgoing;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use wasmtime::{Memory, TypedFunc};
use weir_abi::{BufferKind, IdHasher, LogLevel, MapKind, Status, Version};

use crate::http::body::Buffer;
use crate::plugin::abi::{Calls, Kept, Wasi, Weighed};
use crate::plugin::budget::{Budget, Limiter, LongCalls};
use crate::plugin::fiber::Fiber;
use crate::plugin::grants::{Denials, Rights};
use crate::plugin::quotas::{Quota, Refusals};
use crate::plugin::services::{GuestMetric, Services, Usage};
use crate::plugin::space::Space;
use crate::plugin::spec::FilterSpec;
use crate::plugin::stream::{LocalReply, SharedStream};
use crate::plugin::watch::Watch;

pub use outgoing::{CallAnswer, GrpcOpen, HttpCall, Outgoing};

/// The data of a store.
pub struct Vm {
    /// The guest's memory, once it is instantiated.
    pub memory: Option<Memory>,
    /// The guest's allocator.
    pub allocator: Option<TypedFunc<u32, u32>>,
    /// Whether the guest offers room for what it asks for ([`weir_abi::OFFERS_ROOM`]).
    pub offers_room: bool,
    /// Whether the allocator is running: it may not call back.
    pub allocating: bool,
    /// The ABI that the module speaks.
    pub version: Version,
    /// The CPU budget.
    pub budget: Budget,
    /// CPU time that was used since it was last billed, in nanoseconds.
    pub spent: u64,
    /// What it takes to carry what the call that runs has added to messages, in nanoseconds: it is billed with the call.
    pub carried: u64,
    /// What calls took of that beyond their first half millisecond.
    pub long: LongCalls,
    /// The memory limit.
    pub limiter: Limiter,
    /// WASI.
    pub wasi: Wasi,
    /// The plugins in this VM.
    pub roots: Vec<Root>,
    /// The streams.
    pub streams: Streams,
    /// What a guest has whose calls run on fibers, once it is on a worker.
    pub fiber: Option<Arc<Fiber>>,
    /// The last id that was given to a context.
    pub last_id: u32,
    /// The context that host functions act on.
    pub effective: u32,
    /// What the map weighs that the guest adds to.
    pub weighed: Weighed,
    /// What is to be done once the guest has returned.
    pub outbox: Vec<Outgoing>,
    /// The last token that was given to a call.
    pub last_token: u32,
    /// The last line that the guest logged as a warning or worse while starting: why it refuses, when it does.
    pub last_error: Option<String>,
    /// What all VMs share.
    pub services: Arc<Services>,
    /// The scope of the shared data and the queues that are this VM's.
    pub scope: Arc<str>,
    /// The shared data that this VM sees.
    pub space: Arc<Space>,
    /// The clusters that there are.
    pub clusters: Arc<BTreeSet<Box<str>>>,
    /// Who looks on.
    pub watch: Option<Box<Watch>>,
    /// Metrics that the guest defined; their ids are the places, from 1.
    pub metrics: Arc<Vec<GuestMetric>>,
}

/// The streams of a VM, by their contexts.
pub type Streams = HashMap<u32, StreamContext, BuildHasherDefault<IdHasher>>;

/// A buffer of a stream that is not worth counting, in bytes.
const SMALL: usize = 64 << 10;

/// A plugin in a VM: the root context of its streams.
#[derive(Debug)]
pub struct Root {
    /// Its context id.
    pub id: u32,
    /// What it is.
    pub spec: Arc<FilterSpec>,
    /// What it used.
    pub usage: Arc<Usage>,
    /// What it was denied.
    pub denials: Arc<Denials>,
    /// What it was refused.
    pub refusals: Arc<Refusals>,
    /// The interval of its timer, and how often it was set.
    pub tick: Option<(Duration, u64)>,
    /// How often the timer was set or unset.
    pub ticks_set: u64,
    /// The answer to an HTTP call, while the guest is told of it.
    pub answer: Option<CallAnswer>,
    /// Calls that are under way.
    pub calls: Calls,
    /// Its gRPC calls.
    pub grpc: Grpc,
    /// The status of the call whose end is being told, and its message.
    pub status: (u32, String),
    /// The configuration that it is being started with, while it is.
    pub starting: Option<Starting>,
    /// Whether it has held back its end, and is to say `proxy_done`.
    pub pending: bool,
    /// Whether it has ended, and hears of nothing any more.
    pub deleted: bool,
    /// What foreign functions keep for it.
    pub kept: Arc<Kept>,
}

/// The gRPC calls of a plugin, and what of them is before it while it is told.
#[derive(Debug, Default, Clone)]
pub struct Grpc {
    /// Calls and streams that are under way, by token.
    pub calls: BTreeMap<u32, GrpcCall>,
    /// Bytes of messages that wait to be sent on them, at the most.
    pub waiting: usize,
    /// The message that has come.
    pub message: Option<Bytes>,
    /// The initial metadata that has come.
    pub initial: Option<HeaderMap>,
    /// The trailing metadata that has come.
    pub trailing: Option<HeaderMap>,
}

/// A gRPC call that is under way.
#[derive(Debug, Clone)]
pub struct GrpcCall {
    /// Whether it is one message for one message.
    pub unary: bool,
    /// Whether the guest has ended its half.
    pub closed: bool,
    /// Bytes of messages that wait to be sent.
    pub waiting: Arc<AtomicUsize>,
}

/// Which configuration a root context is being given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starting {
    /// `proxy_on_vm_start`
    Vm,
    /// `proxy_on_configure`
    Plugin,
}

/// A stream in a VM.
#[derive(Debug)]
pub struct StreamContext {
    /// Its root context.
    pub root: u32,
    /// The filter's place in the chain, by which the stream remembers who edited it.
    pub place: usize,
    /// What its filter may do.
    pub rights: Rights,
    /// The stream itself.
    pub stream: SharedStream,
    /// Bytes from downstream (request body, or TCP) that the filter looks at or holds.
    pub received: Buffer,
    /// Bytes from upstream (response body, or TCP) that the filter looks at or holds.
    pub answered: Buffer,
    /// What the guest may look at now.
    pub access: Access,
    /// What the guest asked for.
    pub intents: Intents,
    /// Whom to wake when it asks for something while its filter is not running.
    pub waker: Option<Waker>,
}

/// What a guest may look at: maps and buffers are there in their phase, and as long as the filter holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    maps: u8,
    buffers: u16,
    /// In `proxy_on_log` everything may be read and nothing written.
    read_only: bool,
}

impl Access {
    /// Nothing: a stream has ended.
    pub const NONE: Self = Self { maps: 0, buffers: 0, read_only: true };

    /// What may be looked at when a stream is logged.
    pub const LOG: Self = Self { maps: 0b1111, buffers: 0, read_only: true };

    /// Grants a map.
    pub fn grant_map(&mut self, kind: MapKind) {
        self.maps |= 1 << (kind as u8);
    }

    /// Takes a map back.
    pub fn revoke_map(&mut self, kind: MapKind) {
        self.maps &= !(1 << (kind as u8));
    }

    /// Grants a buffer.
    pub fn grant_buffer(&mut self, kind: BufferKind) {
        self.buffers |= 1 << (kind as u16);
    }

    /// Takes a buffer back.
    pub fn revoke_buffer(&mut self, kind: BufferKind) {
        self.buffers &= !(1 << (kind as u16));
    }

    /// Whether a map may be read.
    pub fn reads(&self, kind: MapKind) -> bool {
        self.maps & (1 << (kind as u8)) != 0
    }

    /// Whether a map may be written.
    pub fn writes(&self, kind: MapKind) -> bool {
        self.reads(kind) && !self.read_only
    }

    /// Whether a buffer may be read and written.
    pub fn has_buffer(&self, kind: BufferKind) -> bool {
        self.buffers & (1 << (kind as u16)) != 0
    }
}

/// What a guest asked for, to be done once it has returned.
#[derive(Debug, Default)]
pub struct Intents {
    /// Resume what comes from downstream: the request, or downstream data.
    pub resume_received: bool,
    /// Resume what comes from upstream: the response, or upstream data.
    pub resume_answered: bool,
    /// Close the downstream connection, or reset the stream.
    pub close: bool,
    /// Close the upstream connection.
    pub close_upstream: bool,
    /// Answer in the place of the upstream.
    pub reply: Option<Box<LocalReply>>,
}

impl Intents {
    /// Whether the chain has something to do.
    pub fn are_any(&self) -> bool {
        self.resume_received
            || self.resume_answered
            || self.close
            || self.close_upstream
            || self.reply.is_some()
    }
}

impl Vm {
    /// Whether its calls run on fibers.
    pub fn is_preemptible(&self) -> bool {
        self.roots.first().is_some_and(|root| root.spec.pool.is_some())
    }

    /// Keeps the context of a stream under a fresh id.
    pub fn add_stream(&mut self, context: StreamContext) -> u32 {
        add_stream(&mut self.streams, &mut self.last_id, self.roots.len(), context)
    }

    /// Takes the streams back that the worker was lent while a call had given way.
    pub fn take_streams_back(&mut self) {
        if let Some(fiber) = &self.fiber {
            fiber.take_back(&mut self.streams, &mut self.last_id);
        }
    }

    /// A number for a call that no other call of this VM has.
    pub fn next_token(&mut self) -> u32 {
        self.last_token = self.last_token.wrapping_add(1).max(1);
        self.last_token
    }

    /// The stream that host functions act on.
    ///
    /// # Errors
    /// [`Status::BadArgument`] when they act on none.
    pub fn stream(&self) -> Result<&StreamContext, Status> {
        self.streams.get(&self.effective).ok_or(Status::BadArgument)
    }

    /// The stream that host functions act on, to be changed.
    ///
    /// # Errors
    /// [`Status::BadArgument`] when they act on none.
    pub fn stream_mut(&mut self) -> Result<&mut StreamContext, Status> {
        self.streams.get_mut(&self.effective).ok_or(Status::BadArgument)
    }

    /// The plugin that host functions act for.
    ///
    /// # Errors
    /// [`Status::BadArgument`] when they act for none, as in start functions.
    pub fn root(&self) -> Result<&Root, Status> {
        let id = self.streams.get(&self.effective).map_or(self.effective, |stream| stream.root);
        self.roots.iter().find(|root| root.id == id).ok_or(Status::BadArgument)
    }

    /// The plugin that host functions act for, to be changed.
    ///
    /// # Errors
    /// [`Status::BadArgument`] when they act for none.
    pub fn root_mut(&mut self) -> Result<&mut Root, Status> {
        let id = self.streams.get(&self.effective).map_or(self.effective, |stream| stream.root);
        self.roots.iter_mut().find(|root| root.id == id).ok_or(Status::BadArgument)
    }

    /// Whether the host may hold so many bytes more for the instance, one buffer of which has `len` then. For what
    /// guests make it hold, an instance has as much as for itself. A refusal is counted.
    pub fn may_hold(&self, more: usize, len: usize) -> bool {
        // Small ones are bounded by the streams that there may be; counting is for what could matter.
        if len <= SMALL {
            return true;
        }
        let held: usize = self.streams.values().map(StreamContext::held).sum();
        let fits = held.saturating_add(more) <= self.limiter.limit();
        if let (false, Ok(root)) = (fits, self.root()) {
            root.refusals.refuse(Quota::Held);
        }
        fits
    }

    /// A host function passes some bytes to or from the guest.
    #[inline]
    pub fn passes(&mut self, bytes: usize) {
        if let Some(watch) = &mut self.watch {
            watch.bytes += bytes as u64;
        }
    }

    /// Writes a line to Weir's log in the name of the plugin.
    pub fn log(&mut self, level: LogLevel, message: &str) {
        if level >= LogLevel::Warn && self.roots.iter().any(|root| root.starting.is_some()) {
            self.last_error = Some(message.to_owned());
        }
        let root = self.root().ok().or(self.roots.first());
        if root.is_some_and(|root| is_logged(level) && !root.refusals.may_log(message.len(), &root.spec)) {
            return;
        }
        let spec = root.map(|root| &root.spec);
        let (plugin, filter) = spec.map_or(("", ""), |spec| (&*spec.plugin, &*spec.name));
        if let Some(outside) = &self.services.outside {
            return outside.logged(filter, level, message);
        }
        match level {
            LogLevel::Trace => tracing::trace!(plugin, filter, "{message}"),
            LogLevel::Debug => tracing::debug!(plugin, filter, "{message}"),
            LogLevel::Info => tracing::info!(plugin, filter, "{message}"),
            LogLevel::Warn => tracing::warn!(plugin, filter, "{message}"),
            LogLevel::Error | LogLevel::Critical => tracing::error!(plugin, filter, "{message}"),
        }
    }
}

/// Keeps the context of a stream under a fresh id. Ids count up behind those of the roots; one that is still alive is
/// passed over when they wrap.
pub fn add_stream(streams: &mut Streams, last_id: &mut u32, roots: usize, context: StreamContext) -> u32 {
    loop {
        *last_id = last_id.wrapping_add(1);
        if *last_id as usize > roots && !streams.contains_key(last_id) {
            streams.insert(*last_id, context);
            return *last_id;
        }
    }
}

/// Whether Weir's log has lines of a level. One that nobody sees takes nothing of a quota.
fn is_logged(level: LogLevel) -> bool {
    match level {
        LogLevel::Trace => tracing::enabled!(tracing::Level::TRACE),
        LogLevel::Debug => tracing::enabled!(tracing::Level::DEBUG),
        LogLevel::Info => tracing::enabled!(tracing::Level::INFO),
        LogLevel::Warn => tracing::enabled!(tracing::Level::WARN),
        LogLevel::Error | LogLevel::Critical => tracing::enabled!(tracing::Level::ERROR),
    }
}

impl StreamContext {
    /// The context of a stream that begins, in the chain at `place`.
    pub fn new(root: u32, place: usize, rights: Rights, stream: SharedStream) -> Self {
        let (access, intents) = (Access::default(), Intents::default());
        let (received, answered) = (Buffer::default(), Buffer::default());
        Self { root, place, rights, stream, received, answered, access, intents, waker: None }
    }

    /// What the host holds for it, in bytes.
    fn held(&self) -> usize {
        let reply = self.intents.reply.as_ref().map_or(0, |reply| reply.body.len());
        self.received.len() + self.answered.len() + reply
    }

    /// Has the chain look at the intents, in case it is waiting.
    pub fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}
