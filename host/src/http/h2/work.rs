//! What a connection that many streams share takes of a worker, and each stream's part of that.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::clock::cycles;

/// What is done at once, at the most: what seems to have taken longer, the thread was put aside for.
const MOST: Duration = Duration::from_millis(1);

/// The work of a connection. What is done at a time is divided among the streams that are open then.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// How many are open.
    open: Cell<u32>,
    /// What a stream would have to pay by now that had been open all the time, in nanoseconds.
    each: Cell<u64>,
}

impl Work {
    /// A stream opens.
    pub(super) fn open(self: &Rc<Self>) -> Part {
        self.open.set(self.open.get() + 1);
        Part { work: Rc::clone(self), paid: Cell::new(self.each.get()) }
    }

    /// Does a piece of the work.
    fn does<T>(&self, piece: impl FnOnce() -> T) -> T {
        let start = cycles::now();
        let done = piece();
        self.took(cycles::between(start, cycles::now()));
        done
    }

    fn took(&self, time: Duration) {
        let time = u64::try_from(time.min(MOST).as_nanos()).unwrap_or(u64::MAX);
        // What is done when there is no stream is for nobody.
        let part = time.checked_div(self.open.get().into()).unwrap_or(0);
        self.each.set(self.each.get().wrapping_add(part));
    }

    /// A task of the connection's.
    pub(super) async fn of(self: Rc<Self>, task: impl Future) {
        let mut task = pin!(task);
        std::future::poll_fn(|cx: &mut Context<'_>| -> Poll<()> {
            self.does(|| Pin::as_mut(&mut task).poll(cx)).map(drop)
        })
        .await;
    }
}

/// A stream's part of what its connection takes of the worker, for as long as this is kept.
#[derive(Debug)]
pub struct Part {
    work: Rc<Work>,
    /// What it has been told of.
    paid: Cell<u64>,
}

impl Part {
    /// What has come up since it was last asked for.
    pub fn take(&self) -> Duration {
        let now = self.work.each.get();
        Duration::from_nanos(now.wrapping_sub(self.paid.replace(now)))
    }
}

#[cfg(test)]
impl Part {
    /// One for which so much has come up.
    pub(crate) fn of(time: Duration) -> Self {
        let work = Rc::<Work>::default();
        let part = work.open();
        work.took(time);
        part
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.work.open.set(self.work.open.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_divided_among_the_streams_that_are_open_and_nobody_pays_it_twice() {
        let work = Rc::<Work>::default();
        let micros = Duration::from_micros;
        work.took(micros(500));
        let first = work.open();
        assert_eq!(first.take(), Duration::ZERO, "what was done before is not its");
        work.took(micros(6));
        let second = work.open();
        work.took(micros(8));
        assert_eq!((first.take(), second.take()), (micros(10), micros(4)));
        drop(second);
        work.took(micros(8));
        assert_eq!((first.take(), first.take()), (micros(8), Duration::ZERO));
        work.took(Duration::from_secs(1));
        assert_eq!(first.take(), MOST, "the thread was put aside");
    }
}
