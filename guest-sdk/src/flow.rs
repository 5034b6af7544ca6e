//! The streams of a filter that awaits something: which of their halves wait, for what, and when they go on.
//!
//! Only filters with an `async fn` come here, and a stream has an entry only as long as something of it waits. Each
//! half of it (request, response) has at most one future. What comes for a half meanwhile is noted and held by the
//! host, and shown to the filter in its turn. The two halves have turns of their own, except that a filter which
//! remembers something of a stream is never asked about both at once: what it remembers is lent to one.
//!
//! A half is let go in one place, [`release`]: by the return value while the host is calling about it, and by
//! `proxy_continue_stream` otherwise. No borrow is held while a filter's code runs.

mod half;

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use weir_abi::{BufferKind, StreamKind};

use crate::by_id::ById;
use crate::error::{Error, Result};
use crate::filter::Action;
use crate::reply::Reply;
use crate::{properties, raw, task};

pub use half::Flow;
pub(crate) use half::Wants;
use half::{Half, Next, Running, Stream};

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

/// The call of the host that is being answered, and whether the half that it is about goes on.
#[derive(Clone, Copy)]
struct Answering {
    context: u32,
    side: Side,
    go: bool,
}

thread_local! {
    static STREAMS: RefCell<ById<Stream>> = const { RefCell::new(ById::new()) };
    static ANSWERING: Cell<Option<Answering>> = const { Cell::new(None) };
}

/// Looks at a half, if its stream has an entry.
fn with<T>(context: u32, side: Side, look: impl FnOnce(&mut Half) -> T) -> Option<T> {
    STREAMS.with(|streams| streams.borrow_mut().get_mut(context).map(|stream| look(stream.half(side))))
}

/// Something has come for a half. Whether it goes on.
pub(crate) fn event(phases: &'static dyn Phases, context: u32, side: Side, event: Event) -> bool {
    let Some(root) = phases.root(context) else { return true };
    task::enter(root);
    let outer = ANSWERING.replace(Some(Answering { context, side, go: false }));
    STREAMS.with(|streams| {
        let mut streams = streams.borrow_mut();
        let new = || Stream { phases, root, request: Half::new(), response: Half::new() };
        if let Some(stream) = streams.get_or_insert_with(context, new) {
            stream.half(side).note(event);
        }
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
        let Some(root) = STREAMS.with(|streams| streams.borrow().get(id.context).map(|s| s.root)) else {
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
    let stream = STREAMS.with(|streams| streams.borrow_mut().remove(context));
    drop(stream);
}

/// Forgets a stream of which nothing waits.
fn tidy(context: u32) {
    let idle = STREAMS.with(|streams| {
        let mut streams = streams.borrow_mut();
        let half = |half: &Half| half.is_idle() && !half.cut && half.flow.passed.get() == 0;
        match streams.get(context) {
            Some(stream) if half(&stream.request) && half(&stream.response) => streams.remove(context),
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
        let stream = streams.get_mut(context)?;
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
                let Some(stream) = streams.get_mut(context) else { return Some(running) };
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
