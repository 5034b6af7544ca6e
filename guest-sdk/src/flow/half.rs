//! What is known of a stream of which something waits, half by half.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use super::{Event, Phase, Phases, Side, Task};

/// What a future wants of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wants {
    /// Nothing: it waits for something else, or not at all.
    Nothing,
    /// More, with what is here.
    All,
    /// The next piece: what is here goes on.
    Next,
}

/// How far the body of a half has come, as the host tells and as the filter has seen.
#[derive(Debug)]
pub struct Flow {
    /// Bytes in the host's buffer.
    pub(crate) len: Cell<usize>,
    /// How many of them the filter has let go, though they are there still.
    pub(crate) passed: Cell<usize>,
    /// Where that ends which it has been shown.
    pub(crate) shown: Cell<usize>,
    /// Nothing comes any more.
    pub(crate) ended: Cell<bool>,
    /// The filter has been shown that.
    pub(crate) end_shown: Cell<bool>,
    /// The headers are to wait, too.
    pub(crate) with_headers: Cell<bool>,
    pub(super) wants: Cell<Wants>,
    pub(super) waker: RefCell<Option<Waker>>,
}

impl Flow {
    pub(super) fn new() -> Self {
        Self {
            len: Cell::new(0),
            passed: Cell::new(0),
            shown: Cell::new(0),
            ended: Cell::new(false),
            end_shown: Cell::new(false),
            with_headers: Cell::new(false),
            wants: Cell::new(Wants::Nothing),
            waker: RefCell::new(None),
        }
    }

    /// A future waits for more.
    pub(crate) fn wait(&self, wants: Wants, cx: &Context<'_>) {
        self.wants.set(wants);
        *self.waker.borrow_mut() = Some(cx.waker().clone());
    }

    pub(super) fn note(&self, event: Event) {
        match event {
            Event::Headers { last } => self.ended.set(last),
            Event::Body { len, last } => {
                self.len.set(len as usize);
                self.ended.set(last);
            }
            Event::Trailers => self.ended.set(true),
        }
    }

    /// What was here has gone on.
    pub(super) fn gone(&self) {
        self.len.set(0);
        self.passed.set(0);
        self.shown.set(0);
    }
}

/// A future of a half.
pub(super) struct Running {
    pub(super) task: Task,
    pub(super) waker: Waker,
}

/// A half of a stream.
pub(super) struct Half {
    pub(super) flow: Rc<Flow>,
    pub(super) running: Option<Running>,
    /// A future is out of its place while it is polled.
    pub(super) polled: bool,
    /// Headers that the filter has not been asked about.
    pub(super) headers: Option<bool>,
    /// Whether there is of the body what it has not been asked about.
    pub(super) body: bool,
    /// Whether there are trailers that it has not been asked about.
    pub(super) trailers: bool,
    /// The host holds the headers.
    pub(super) holds_headers: bool,
    /// What follows may not pass: the future that was to see it was given up.
    pub(super) cut: bool,
}

impl Half {
    pub(super) fn new() -> Self {
        Self {
            flow: Rc::new(Flow::new()),
            running: None,
            polled: false,
            headers: None,
            body: false,
            trailers: false,
            holds_headers: false,
            cut: false,
        }
    }

    pub(super) fn note(&mut self, event: Event) {
        self.flow.note(event);
        match event {
            Event::Headers { last } => {
                self.headers = Some(last);
                self.holds_headers = true;
            }
            Event::Body { .. } => self.body = true,
            Event::Trailers => self.trailers = true,
        }
    }

    /// Whether a future of it exists.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some() || self.polled
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.is_running() && self.headers.is_none() && !self.body && !self.trailers
    }

    /// What is to be done next. What came of a body is the running future's, if it wants that.
    pub(super) fn next(&mut self) -> Option<Next> {
        if self.cut || self.polled {
            return None;
        }
        if self.running.is_some() {
            let wanted = self.flow.wants.get() != Wants::Nothing && (self.body || self.flow.ended.get());
            return wanted.then(|| {
                self.body = false;
                Next::Poll
            });
        }
        if let Some(last) = self.headers.take() {
            return Some(Next::Ask(Phase::Headers { last }));
        }
        if std::mem::take(&mut self.body) {
            return Some(Next::Ask(Phase::Body));
        }
        std::mem::take(&mut self.trailers).then_some(Next::Ask(Phase::Trailers))
    }

    /// The filter could not be asked: it will be, later.
    pub(super) fn put_back(&mut self, phase: Phase) {
        match phase {
            Phase::Headers { last } => self.headers = Some(last),
            Phase::Body => self.body = true,
            Phase::Trailers => self.trailers = true,
        }
    }
}

pub(super) enum Next {
    Poll,
    Ask(Phase),
}

/// A stream of which something waits.
pub(super) struct Stream {
    pub(super) phases: &'static dyn Phases,
    pub(super) root: u32,
    pub(super) request: Half,
    pub(super) response: Half,
}

impl Stream {
    pub(super) fn half(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Request => &mut self.request,
            Side::Response => &mut self.response,
        }
    }
}
