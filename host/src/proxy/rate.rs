//! How fast a client sends or takes a body: whoever is too slow for too long is not waited for any more.
//!
//! It has some credit, in time. Waiting for it uses that up, and every byte that moves earns some more. While nobody
//! waits for it, as when the upstream is slow, it loses nothing.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use crate::clock::{Timer, Timers, coarse_millis};

/// Watches one direction of an exchange.
#[derive(Debug)]
pub struct Rate {
    timers: Rc<Timers>,
    /// Made when the client is waited for: most clients never are.
    timer: OnceCell<Timer>,
    /// Bytes in a second; 0 is no limit.
    least: u64,
    /// In milliseconds.
    credit: Cell<u64>,
    /// The most credit that can be had, in milliseconds.
    most: u64,
    /// Since when the client is waited for, in coarse milliseconds.
    since: Cell<Option<u64>>,
}

impl Rate {
    /// A client that must move `least` bytes in a second, 0 for none, and may be slower for as long as `grace`. Whoever
    /// was fast may be slow for longer later, up to `most`.
    pub fn new(timers: &Rc<Timers>, least: usize, grace: Duration, most: Option<Duration>) -> Self {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            timers: Rc::clone(timers),
            timer: OnceCell::new(),
            least: least as u64,
            credit: Cell::new(millis(grace)),
            most: most.map_or(u64::MAX, millis),
            since: Cell::new(None),
        }
    }

    /// The client is waited for.
    pub fn wait(&self, cx: &Context<'_>) {
        let begins = self.since.get().is_none();
        if begins {
            self.since.set(Some(coarse_millis()));
        }
        if self.least == 0 {
            return;
        }
        let timer = self.timer.get_or_init(|| self.timers.timer());
        if begins {
            timer.set(Duration::from_millis(self.credit.get()));
        }
        // Whoever is woken looks at it.
        let _ = timer.poll_expired(cx);
    }

    /// The client is not waited for any more.
    pub fn go_on(&self) {
        if let Some(since) = self.since.take() {
            let waited = coarse_millis().saturating_sub(since);
            self.credit.set(self.credit.get().saturating_sub(waited));
        }
    }

    /// Whether the client is waited for.
    pub fn is_waiting(&self) -> bool {
        self.since.get().is_some()
    }

    /// Bytes have moved.
    pub fn moved(&self, bytes: usize) {
        if let Some(earned) = (bytes as u64).saturating_mul(1_000).checked_div(self.least) {
            self.credit.set(self.credit.get().saturating_add(earned).min(self.most));
        }
    }

    /// Whether the client is waited for in vain.
    pub fn is_late(&self, cx: &Context<'_>) -> bool {
        self.since.get().is_some() && self.timer.get().is_some_and(|timer| timer.poll_expired(cx).is_ready())
    }
}
