//! The streams of a filter that awaits something: which of their halves wait, for what, and when they go on.
//!
//! Only filters with an `async fn` come here, and a stream has an entry only as long as something of it waits. Each
//! half of it (request, response) has at most one future. What comes for a half meanwhile is noted and held by the
//! host, and shown to the filter in its turn. The two halves have turns of their own, except that a filter which
//! remembers something of a stream is never asked about both at once: what it remembers is lent to one.
//!
//! A half is let go in one place, [`release`]: by the return value while the host is calling about it, and by
//! `proxy_continue_stream` otherwise. No borrow is held while a filter's code runs.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use weir_abi::{BufferKind, StreamKind};

use crate::error::{Error, Result};
use crate::filter::Action;
use crate::reply::Reply;
use crate::table::{ById, by_id};
use crate::{properties, raw, task};

/// A half of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The request.
    Request,
    /// The response.
    Response,
}

impl Side {
    fn stream(self) -> StreamKind {
        match self {
            Self::Request => StreamKind::HttpRequest,
            Self::Response => StreamKind::HttpResponse,
        }
    }

    pub(crate) fn body(self) -> BufferKind {
        match self {
            Self::Request => BufferKind::HttpRequestBody,
            Self::Response => BufferKind::HttpResponseBody,
        }
    }

    fn lane(self) -> u32 {
        match self {
            Self::Request => 0,
            Self::Response => 1,
        }
    }

    fn of_lane(lane: u32) -> Option<Self> {
        match lane {
            0 => Some(Self::Request),
            1 => Some(Self::Response),
            _ => None,
        }
    }
}

/// What the host calls about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Headers { last: bool },
    Body { len: u32, last: bool },
    Trailers,
}

/// What a filter is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Headers { last: bool },
    Body,
    Trailers,
}

/// The future of a filter's method.
pub type Task = Pin<Box<dyn Future<Output = Result<Action>>>>;

/// What became of asking a filter.
pub enum Begun {
    /// It has said what is to be done.
    Done(Result<Action>),
    /// It may await something first.
    Later(Task),
    /// What it remembers of the stream is lent to the other half.
    Busy,
}

/// A filter, whatever its type.
pub trait Phases {
    /// The root context of a stream; `None` when there is no such stream.
    fn root(&'static self, context: u32) -> Option<u32>;

    /// Asks the filter.
    fn begin(&'static self, context: u32, side: Side, phase: Phase, flow: &Rc<Flow>) -> Begun;
}

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
    wants: Cell<Wants>,
    waker: RefCell<Option<Waker>>,
}

impl Flow {
    fn new() -> Self {
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

    fn note(&self, event: Event) {
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
    fn gone(&self) {
        self.len.set(0);
        self.passed.set(0);
        self.shown.set(0);
    }
}

/// A future of a half.
struct Running {
    task: Task,
    waker: Waker,
}

/// A half of a stream.
struct Half {
    flow: Rc<Flow>,
    running: Option<Running>,
    /// A future is out of its place while it is polled.
    polled: bool,
    /// Headers that the filter has not been asked about.
    headers: Option<bool>,
    /// Whether there is of the body what it has not been asked about.
    body: bool,
    /// Whether there are trailers that it has not been asked about.
    trailers: bool,
    /// The host holds the headers.
    holds_headers: bool,
    /// What follows may not pass: the future that was to see it was given up.
    cut: bool,
}

impl Half {
    fn new() -> Self {
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

    fn note(&mut self, event: Event) {
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
    fn is_running(&self) -> bool {
        self.running.is_some() || self.polled
    }

    fn is_idle(&self) -> bool {
        !self.is_running() && self.headers.is_none() && !self.body && !self.trailers
    }

    /// What is to be done next. What came of a body is the running future's, if it wants that.
    fn next(&mut self) -> Option<Next> {
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
    fn put_back(&mut self, phase: Phase) {
        match phase {
            Phase::Headers { last } => self.headers = Some(last),
            Phase::Body => self.body = true,
            Phase::Trailers => self.trailers = true,
        }
    }
}

enum Next {
    Poll,
    Ask(Phase),
}

/// A stream of which something waits.
struct Stream {
    phases: &'static dyn Phases,
    root: u32,
    request: Half,
    response: Half,
}

impl Stream {
    fn half(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Request => &mut self.request,
            Side::Response => &mut self.response,
        }
    }
}

/// The call of the host that is being answered, and whether the half that it is about goes on.
#[derive(Clone, Copy)]
struct Answering {
    context: u32,
    side: Side,
    go: bool,
}

thread_local! {
    static STREAMS: RefCell<ById<Stream>> = const { RefCell::new(by_id()) };
    static ANSWERING: Cell<Option<Answering>> = const { Cell::new(None) };
}

/// Looks at a half, if its stream has an entry.
fn with<T>(context: u32, side: Side, look: impl FnOnce(&mut Half) -> T) -> Option<T> {
    STREAMS.with(|streams| streams.borrow_mut().get_mut(&context).map(|stream| look(stream.half(side))))
}

/// Something has come for a half. Whether it goes on.
pub(crate) fn event(phases: &'static dyn Phases, context: u32, side: Side, event: Event) -> bool {
    let Some(root) = phases.root(context) else { return true };
    task::enter(root);
    let outer = ANSWERING.replace(Some(Answering { context, side, go: false }));
    STREAMS.with(|streams| {
        let mut streams = streams.borrow_mut();
        let stream = streams.entry(context).or_insert_with(|| Stream {
            phases,
            root,
            request: Half::new(),
            response: Half::new(),
        });
        stream.half(side).note(event);
    });
    if let (Side::Response, Event::Headers { .. }) = (side, event) {
        give_up_request(context);
    }
    let waker = with(context, side, |half| half.flow.waker.borrow_mut().take());
    if let Some(waker) = waker.flatten() {
        waker.wake();
    }
    proceed(context, side);
    drain();
    tidy(context);
    ANSWERING.replace(outer).is_some_and(|answer| answer.go)
}

/// Polls whatever was woken.
pub(crate) fn drain() {
    while let Some(id) = task::take_woken() {
        let Some(side) = Side::of_lane(id.lane) else {
            task::poll_background(id);
            continue;
        };
        let Some(root) = STREAMS.with(|streams| streams.borrow().get(&id.context).map(|s| s.root)) else {
            continue;
        };
        task::enter(root);
        // One that the host does not know any more is being deleted.
        if raw::set_effective_context(id.context).is_ok() {
            poll(id.context, side);
            proceed(id.context, side);
            tidy(id.context);
        }
    }
}

/// A stream is over: its futures are dropped, and with them the calls that they wait for.
pub(crate) fn end(context: u32) {
    let stream = STREAMS.with(|streams| streams.borrow_mut().remove(&context));
    drop(stream);
}

/// Forgets a stream of which nothing waits.
fn tidy(context: u32) {
    let idle = STREAMS.with(|streams| {
        let mut streams = streams.borrow_mut();
        let half = |half: &Half| half.is_idle() && !half.cut && half.flow.passed.get() == 0;
        match streams.get(&context) {
            Some(stream) if half(&stream.request) && half(&stream.response) => streams.remove(&context),
            _ => None,
        }
    });
    drop(idle);
}

/// Does what is to be done for a half until it waits, and then for the other one, which may have waited for this.
fn proceed(context: u32, side: Side) {
    advance(context, side);
    let other = match side {
        Side::Request => Side::Response,
        Side::Response => Side::Request,
    };
    if with(context, other, |half| !half.is_running() && !half.is_idle()) == Some(true) {
        advance(context, other);
    }
}

fn advance(context: u32, side: Side) {
    while let Some(next) = with(context, side, Half::next).flatten() {
        match next {
            Next::Poll => poll(context, side),
            Next::Ask(phase) => {
                if !ask(context, side, phase) {
                    return;
                }
            }
        }
    }
}

/// Asks the filter about something that has come. False when it can't be asked yet.
fn ask(context: u32, side: Side, phase: Phase) -> bool {
    let found = STREAMS.with(|streams| {
        let mut streams = streams.borrow_mut();
        let stream = streams.get_mut(&context)?;
        Some((stream.phases, Rc::clone(&stream.half(side).flow)))
    });
    let Some((phases, flow)) = found else { return false };
    match phases.begin(context, side, phase, &flow) {
        Begun::Done(result) => finish(context, side, result),
        Begun::Later(mut task) => {
            flow.wants.set(Wants::Nothing);
            // Whoever is ready at once needs no waker. The others are polled again.
            if let Poll::Ready(result) = task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                drop(task);
                finish(context, side, result);
                return true;
            }
            let waker = task::waker(task::Id { context, lane: side.lane() });
            with(context, side, |half| half.running = Some(Running { task, waker }));
            poll(context, side);
        }
        Begun::Busy => {
            with(context, side, |half| half.put_back(phase));
            return false;
        }
    }
    true
}

/// A response begins while a future of the request waits. The upstream's is shown in its turn. Another one is the host's or
/// another filter's, made because the request goes no further (its time is up, or it is too large): nobody would ever
/// wake the future.
fn give_up_request(context: u32) {
    let waits = with(context, Side::Request, |half| half.running.is_some());
    if waits == Some(true) && !properties::is_of_upstream() {
        let given_up = with(context, Side::Request, |half| {
            half.cut = true;
            half.running.take()
        });
        drop(given_up);
    }
}

/// Polls the future of a half.
fn poll(context: u32, side: Side) {
    let taken = with(context, side, |half| {
        let running = half.running.take()?;
        half.polled = true;
        half.flow.wants.set(Wants::Nothing);
        Some(running)
    });
    let Some(mut running) = taken.flatten() else { return };
    task::is_polled(task::Id { context, lane: side.lane() });
    let polled = running.task.as_mut().poll(&mut Context::from_waker(&running.waker));
    match polled {
        Poll::Ready(result) => {
            drop(running);
            with(context, side, |half| half.polled = false);
            finish(context, side, result);
        }
        Poll::Pending => {
            let left = STREAMS.with(|streams| {
                let mut streams = streams.borrow_mut();
                let Some(stream) = streams.get_mut(&context) else { return Some(running) };
                let half = stream.half(side);
                half.polled = false;
                half.running = Some(running);
                None
            });
            drop(left);
            settle(context, side);
        }
    }
}

/// A future waits. If it waits for the body, what is in the way of that goes on.
fn settle(context: u32, side: Side) {
    let goes = with(context, side, |half| {
        let flow = &half.flow;
        let nothing_came = flow.len.get() == 0 && !flow.ended.get();
        match flow.wants.get() {
            Wants::Nothing => false,
            Wants::All => half.holds_headers && !flow.with_headers.get() && nothing_came,
            Wants::Next => !flow.with_headers.get() || !half.holds_headers,
        }
    });
    if goes == Some(true) {
        release(context, side);
    }
}

/// A filter has said what is to be done.
fn finish(context: u32, side: Side, result: Result<Action>) {
    let reply = match result {
        Ok(Action::Continue) => {
            let all = with(context, side, |half| {
                let flow = &half.flow;
                flow.passed.set(flow.shown.get());
                let unseen_end = flow.ended.get() && !flow.end_shown.get();
                half.body &= flow.shown.get() < flow.len.get() || unseen_end;
                half.headers.is_none() && !half.body && !half.trailers
            });
            if all == Some(true) {
                release(context, side);
            }
            return;
        }
        Ok(Action::Pause) => return,
        Ok(Action::Reply(reply)) => reply,
        Err(error) => failed(&error),
    };
    with(context, side, |half| {
        (half.headers, half.body, half.trailers) = (None, false, false);
        half.flow.gone();
    });
    send(&reply);
}

/// Lets a half go on.
fn release(context: u32, side: Side) {
    with(context, side, |half| {
        half.holds_headers = false;
        half.flow.gone();
    });
    if let Some(answering) = ANSWERING.get()
        && (answering.context, answering.side) == (context, side)
    {
        ANSWERING.set(Some(Answering { go: true, ..answering }));
    } else if let Err(status) = raw::continue_stream(side.stream()) {
        crate::error!("a stream could not go on: the host answered {status:?}");
    }
}

/// The answer to a request that meets an error, which is logged.
pub(crate) fn failed(error: &Error) -> Reply {
    crate::error!("{error}");
    Reply::new(error.reply_status()).details("filter_error")
}

/// Sends a reply. Whatever the host says to it, the message does not go on.
pub(crate) fn send(reply: &Reply) {
    if let Err(status) = reply.send() {
        crate::error!("a reply could not be sent: the host answered {status:?}");
    }
}
