//! A pipe for one body, between two tasks of a worker: what one side writes the other reads, in order, with
//! back-pressure.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;

use crate::http::body::Frame;

/// The state that both ends share.
#[derive(Debug, Default)]
struct Shared {
    frames: VecDeque<Frame>,
    queued: usize,
    /// Whether what was read last may not have gone on.
    lent: bool,
    state: State,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Whether the reading end is gone.
    deaf: bool,
    /// Whether nothing but the end is passed on.
    mute: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// Nothing comes behind what is queued.
    Ended,
    /// The message broke off.
    Broken,
}

/// Above this, what is queued has to be read before more is taken.
const FULL: usize = 64 * 1024;

/// The message broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message broke off")]
pub struct BrokenOff;

/// The writing end. A body whose writer goes before it has ended is broken off.
#[derive(Debug)]
pub struct Writer(Rc<RefCell<Shared>>);

/// The reading end.
#[derive(Debug)]
pub struct Reader(Rc<RefCell<Shared>>);

/// A new pipe.
pub fn pipe() -> (Writer, Reader) {
    let shared = Rc::<RefCell<Shared>>::default();
    (Writer(Rc::clone(&shared)), Reader(shared))
}

impl Writer {
    /// Ready when more can be taken.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub fn poll_ready(&self, cx: &Context<'_>) -> Poll<Result<(), BrokenOff>> {
        let mut shared = self.0.borrow_mut();
        if shared.deaf {
            return Poll::Ready(Err(BrokenOff));
        }
        if shared.queued < FULL {
            return Poll::Ready(Ok(()));
        }
        shared.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready when nobody reads any more.
    pub fn poll_deaf(&self, cx: &Context<'_>) -> Poll<()> {
        let mut shared = self.0.borrow_mut();
        if shared.deaf {
            return Poll::Ready(());
        }
        shared.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready when everything has been read and has gone on (whoever reads asks for more only then), or nobody reads any
    /// more.
    pub fn poll_drained(&self, cx: &Context<'_>) -> Poll<()> {
        let mut shared = self.0.borrow_mut();
        if (shared.frames.is_empty() && !shared.lent) || shared.deaf {
            return Poll::Ready(());
        }
        shared.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether what was read last may not have gone on: whoever reads has not come back for more.
    pub fn is_lent(&self) -> bool {
        self.0.borrow().lent
    }

    /// From now on what is given is dropped, but for the end: for responses that have no body.
    pub fn mute(&self) {
        self.0.borrow_mut().mute = true;
    }

    /// Takes a piece.
    pub fn data(&self, data: Bytes) {
        let mut shared = self.0.borrow_mut();
        if !data.is_empty() && !shared.mute {
            shared.queued += data.len();
            shared.frames.push_back(Frame::Data(data));
            shared.wake_reader();
        }
    }

    /// Ends the body.
    pub fn end(&self, trailers: Option<HeaderMap>) {
        let mut shared = self.0.borrow_mut();
        if !shared.mute {
            shared.frames.extend(trailers.map(Frame::Trailers));
        }
        shared.state = State::Ended;
        shared.wake_reader();
    }

    /// Breaks the body off.
    pub fn break_off(&self) {
        let mut shared = self.0.borrow_mut();
        if shared.state == State::Open {
            shared.state = State::Broken;
        }
        shared.wake_reader();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.break_off();
    }
}

impl Reader {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When the message broke off.
    pub fn poll_frame(&self, cx: &Context<'_>) -> Poll<Result<Option<Frame>, BrokenOff>> {
        let mut shared = self.0.borrow_mut();
        if shared.state == State::Broken {
            return Poll::Ready(Err(BrokenOff));
        }
        let next = shared.frames.pop_front();
        if std::mem::replace(&mut shared.lent, next.is_some())
            && next.is_none()
            && let Some(writer) = shared.writer.take()
        {
            writer.wake();
        }
        if let Some(frame) = next {
            if let Frame::Data(data) = &frame {
                shared.queued -= data.len();
            }
            if let Some(writer) = shared.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Ok(Some(frame)));
        }
        if shared.state == State::Ended {
            return Poll::Ready(Ok(None));
        }
        shared.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether the body has ended and everything was read.
    pub fn is_end(&self) -> bool {
        let shared = self.0.borrow();
        shared.state == State::Ended && shared.frames.is_empty()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut shared = self.0.borrow_mut();
        shared.deaf = true;
        shared.frames.clear();
        if let Some(writer) = shared.writer.take() {
            writer.wake();
        }
    }
}

impl Shared {
    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn what_is_written_is_read_in_order_with_its_trailers() {
        let (writer, reader) = pipe();
        assert!(reader.poll_frame(&cx()).is_pending());
        writer.data(Bytes::from_static(b"a"));
        writer.end(Some(HeaderMap::new()));
        assert!(matches!(reader.poll_frame(&cx()), Poll::Ready(Ok(Some(Frame::Data(data)))) if data == "a"));
        assert!(matches!(reader.poll_frame(&cx()), Poll::Ready(Ok(Some(Frame::Trailers(_))))));
        assert!(reader.is_end());
        drop(writer);
        assert!(matches!(reader.poll_frame(&cx()), Poll::Ready(Ok(None))), "an end stays an end");
    }

    #[test]
    fn a_writer_that_goes_early_breaks_the_message_off() {
        let (writer, reader) = pipe();
        writer.data(Bytes::from_static(b"a"));
        drop(writer);
        assert!(matches!(reader.poll_frame(&cx()), Poll::Ready(Err(BrokenOff))));
    }

    #[test]
    fn a_pipe_is_drained_when_its_reader_comes_back_for_more_or_goes() {
        let (writer, reader) = pipe();
        assert!(writer.poll_drained(&cx()).is_ready());
        writer.data(Bytes::from_static(b"a"));
        assert!(writer.poll_drained(&cx()).is_pending());
        assert!(reader.poll_frame(&cx()).is_ready());
        assert!(writer.poll_drained(&cx()).is_pending(), "the reader still holds it");
        assert!(reader.poll_frame(&cx()).is_pending());
        assert!(writer.poll_drained(&cx()).is_ready());
        writer.data(Bytes::from_static(b"a"));
        drop(reader);
        assert!(writer.poll_drained(&cx()).is_ready());
    }

    #[test]
    fn a_full_pipe_takes_no_more_and_one_without_reader_nothing() {
        let (writer, reader) = pipe();
        writer.data(Bytes::from(vec![0; FULL]));
        assert!(writer.poll_ready(&cx()).is_pending());
        assert!(reader.poll_frame(&cx()).is_ready());
        assert!(writer.poll_ready(&cx()).is_ready());
        drop(reader);
        assert!(matches!(writer.poll_ready(&cx()), Poll::Ready(Err(BrokenOff))));
        assert!(writer.poll_deaf(&cx()).is_ready());
    }
}
