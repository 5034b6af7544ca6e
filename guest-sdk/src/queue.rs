//! Queues that instances share: those of all workers, and those of other plugins.
//!
//! What is put into a queue comes out of it once, for whoever takes it first. A queue is a plugin's own, by its `vm_id`; others can
//! put something into it, when the operator grants that.
//!
//! Hosts tell one instance that something has come: the one that opened the queue last, and when that is gone, the one before. So
//! what comes is awaited in a future that is no stream's, as below: a stream may be on a worker that is not told. Every
//! instance can put something in, and take what is there.
//!
//! ```no_run
//! use weir_sdk::prelude::*;
//! use weir_sdk::queue::{self, Queue};
//! use weir_sdk::{http, spawn};
//!
//! /// Tells an audit service of each request, without a request waiting for it.
//! struct Audit {
//!     queue: Queue,
//! }
//!
//! #[weir_sdk::http_filter(grants(clusters = ["audit"]))]
//! impl HttpFilter for Audit {
//!     fn new(_: ()) -> Result<Self> {
//!         let queue = queue::open("audit")?;
//!         // Each instance says so, and one of them is told. It need not be the one that put an entry in.
//!         spawn(async move {
//!             while let Ok(entry) = queue.next().await {
//!                 if let Err(error) = http::call("audit", http::Request::post("/entries", entry)).await {
//!                     weir_sdk::warn!("an entry is lost: {error}");
//!                 }
//!             }
//!         });
//!         Ok(Self { queue })
//!     }
//!
//!     async fn on_request_headers(&self, request: &mut Request, _: &mut ()) -> Result<Action> {
//!         self.queue.push(request.path()?)?;
//!         Ok(Action::Continue)
//!     }
//! }
//! # fn main() {}
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use weir_abi::Status;

use crate::error::{Error, Explain, Result};
use crate::raw;

/// A queue of the plugin's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue(Sender);

/// A queue into which something can be put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender(u32);

/// Opens the queue of this name, and makes it when there is none.
///
/// # Errors
/// When the host has no room for another one.
pub fn open(name: &str) -> Result<Queue> {
    let opened = raw::register_queue(name).explain(|| format!("opening queue `{name}`"))?;
    Ok(Queue(Sender(opened)))
}

/// The queue of this name that plugins with the VM id have opened; `None` when none has yet.
///
/// # Errors
/// When the plugin may not use what is theirs: the operator grants it, in Weir by `shared_data`.
pub fn find(vm_id: &str, name: &str) -> Result<Option<Sender>> {
    let found = raw::resolve_queue(vm_id, name).explain(|| format!("finding queue `{name}` of `{vm_id}`"))?;
    Ok(found.map(Sender))
}

impl Sender {
    /// Puts something at the end.
    ///
    /// # Errors
    /// When the queue is full.
    pub fn push(self, value: impl AsRef<[u8]>) -> Result<()> {
        raw::enqueue(self.0, value.as_ref()).explain(|| "putting something into a queue".to_owned())
    }
}

impl Queue {
    /// Puts something at the end.
    ///
    /// # Errors
    /// When the queue is full.
    pub fn push(self, value: impl AsRef<[u8]>) -> Result<()> {
        self.0.push(value)
    }

    /// Takes what is first; `None` when there is nothing.
    ///
    /// # Errors
    /// When the host does not give it.
    pub fn pop(self) -> Result<Option<Vec<u8>>> {
        match raw::dequeue(self.0.0) {
            Ok(value) => Ok(Some(value)),
            Err(Status::Empty) => Ok(None),
            Err(status) => Err(Error::host("taking something out of a queue", status)),
        }
    }

    /// Awaits something, and takes it. Of several futures of this instance that wait, one gets it. It is for the instance that
    /// opened the queue last: no other one is told of what comes.
    pub fn next(self) -> Next {
        Next { queue: self, place: None }
    }
}

/// Awaits what comes out of a queue. See [`Queue::next`]. Its output is the host's error when it does not give it.
#[derive(Debug)]
#[must_use = "nothing is taken before it is awaited"]
pub struct Next {
    queue: Queue,
    place: Option<Place>,
}

/// A queue, and a number that tells apart those who wait for it.
type Place = (u32, u32);

impl Future for Next {
    type Output = Result<Vec<u8>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>>> {
        if let Some(value) = self.queue.pop().transpose() {
            self.leave();
            return Poll::Ready(value);
        }
        let queue = self.queue.0.0;
        WAITING.with(|waiting| {
            let waiting = &mut *waiting.borrow_mut();
            let place = *self.place.get_or_insert_with(|| {
                waiting.number = waiting.number.wrapping_add(1);
                (queue, waiting.number)
            });
            waiting.wakers.insert(place, cx.waker().clone());
        });
        Poll::Pending
    }
}

impl Next {
    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            let gone = WAITING.with(|waiting| waiting.borrow_mut().wakers.remove(&place));
            drop(gone);
        }
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        self.leave();
    }
}

/// There is something in a queue. All who wait for it look, since what one takes is not all that there may be.
pub(crate) fn ready(queue: u32) {
    let woken: Vec<Waker> = WAITING.with(|waiting| {
        waiting
            .borrow()
            .wakers
            .range((queue, 0)..=(queue, u32::MAX))
            .map(|(_, waker)| waker.clone())
            .collect()
    });
    woken.into_iter().for_each(Waker::wake);
}

struct Waiting {
    wakers: BTreeMap<Place, Waker>,
    number: u32,
}

thread_local! {
    static WAITING: RefCell<Waiting> = const { RefCell::new(Waiting { wakers: BTreeMap::new(), number: 0 }) };
}
