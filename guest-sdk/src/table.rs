//! What a plugin waits for by token: answers of calls, each for whoever awaits it.

use std::cell::RefCell;
use std::task::{Context, Poll, Waker};

use crate::by_id::ById;

/// Answers that are awaited. A token is here exactly as long as its future: an answer that nobody awaits any more is
/// not kept, and not even read.
pub(crate) struct Table<A>(RefCell<ById<Awaited<A>>>);

struct Awaited<A> {
    answer: Option<A>,
    waker: Waker,
}

impl<A> Table<A> {
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(ById::new()))
    }

    /// From now on an answer is awaited.
    pub(crate) fn open(&self, token: u32, cx: &Context<'_>) {
        let awaited = Awaited { answer: None, waker: cx.waker().clone() };
        self.0.borrow_mut().insert(token, awaited);
    }

    pub(crate) fn is_awaited(&self, token: u32) -> bool {
        self.0.borrow().get(token).is_some()
    }

    /// Here it is. Whoever awaits it is woken.
    pub(crate) fn answer(&self, token: u32, answer: A) {
        let waker = self.0.borrow_mut().get_mut(token).map(|awaited| {
            awaited.answer = Some(answer);
            awaited.waker.clone()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The answer, once; `None` when the token is not known.
    pub(crate) fn poll(&self, token: u32, cx: &Context<'_>) -> Poll<Option<A>> {
        let mut awaited = self.0.borrow_mut();
        let Some(found) = awaited.get_mut(token) else { return Poll::Ready(None) };
        match found.answer.take() {
            Some(answer) => {
                awaited.remove(token);
                Poll::Ready(Some(answer))
            }
            None => {
                found.waker.clone_from(cx.waker());
                Poll::Pending
            }
        }
    }

    /// It is not awaited any more. True when it was, and there was no answer yet.
    pub(crate) fn forget(&self, token: u32) -> bool {
        let forgotten = self.0.borrow_mut().remove(token);
        forgotten.is_some_and(|awaited| awaited.answer.is_none())
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }
}
