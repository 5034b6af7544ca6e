//! Draining: a worker stops taking work, what runs may finish, then the worker ends.
//!
//! The control plane asks each worker once. A worker has one [`Drain`]; every connection holds a [`Participant`]
//! of it, and the drain is complete when the last one is dropped.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::clock::Timers;

/// The drain of one worker.
#[derive(Debug, Default)]
pub struct Drain {
    started: Cell<bool>,
    over: Cell<bool>,
    participants: Cell<usize>,
    idle: Notify,
    timers: Rc<Timers>,
}

impl Drain {
    /// A drain that has not begun. Connections are woken through `timers`.
    pub fn new(timers: Rc<Timers>) -> Self {
        Self { timers, ..Self::default() }
    }

    /// Begins: connections see [`Drain::started`], and those that wait are woken to look.
    pub fn start(&self) {
        self.started.set(true);
        self.timers.wake_all();
    }

    /// Whether the worker drains.
    pub fn started(&self) -> bool {
        self.started.get()
    }

    /// Its time is up: what still runs is cut.
    pub fn end(&self) {
        self.over.set(true);
    }

    /// Why something that still runs ends now, for the access log: nobody is left to read a metric.
    pub fn cuts(&self) -> Option<&'static str> {
        self.over.get().then_some("drain_timeout")
    }

    /// Holds the drain open until it is dropped.
    pub fn join(self: &Rc<Self>) -> Participant {
        self.participants.set(self.participants.get() + 1);
        Participant(Rc::clone(self))
    }

    /// How many take part.
    pub fn participants(&self) -> usize {
        self.participants.get()
    }

    /// Waits until nobody takes part any more.
    pub async fn finished(&self) {
        while self.participants.get() > 0 {
            self.idle.notified().await;
        }
    }
}

/// Something that a drain waits for.
#[derive(Debug)]
pub struct Participant(Rc<Drain>);

impl Drop for Participant {
    fn drop(&mut self) {
        let left = self.0.participants.get().saturating_sub(1);
        self.0.participants.set(left);
        if left == 0 {
            self.0.idle.notify_one();
        }
    }
}
