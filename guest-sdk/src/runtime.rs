//! From callbacks to filters: which filter and which stream a context id stands for.
#![expect(missing_docs, reason = "the callbacks of the contract, by their names")]

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::thread::LocalKey;
use std::time::Duration;

use serde::de::DeserializeOwned;
use weir_abi::{BufferKind, MapKind, PeerKind, StreamKind};

use crate::body::Body;
use crate::by_id::ById;
use crate::error::{Error, Result};
use crate::filter::{Action, HttpFilter, Request, Response, method};
use crate::flow::{Begun, Event, Flow, Phase, Phases, Side};
use crate::headers::Trailers;
use crate::network::{Connection, ConnectionAction, NetworkFilter};
use crate::reply::Reply;
use crate::{flow, grpc, http, json, queue, raw, task, timer};

const CONTINUE: u32 = weir_abi::Action::Continue as u32;
const PAUSE: u32 = weir_abi::Action::Pause as u32;

/// The filters of a module and their streams. A VM may hold several filters of one module, each with its own
/// configuration.
struct Contexts<F, S> {
    /// By root context. They are few.
    filters: RefCell<Vec<(u32, Rc<F>)>>,
    streams: RefCell<ById<Context<S>>>,
}

/// A stream: its root context, and its state unless that is lent to the filter just now.
struct Context<S> {
    root: u32,
    state: Option<S>,
}

impl<F, S: Default> Contexts<F, S> {
    const fn new() -> Self {
        Self { filters: RefCell::new(Vec::new()), streams: RefCell::new(ById::new()) }
    }

    fn create(&self, context: u32, parent: u32) {
        if parent != 0 {
            self.streams.borrow_mut().insert(context, Context { root: parent, state: Some(S::default()) });
        }
    }

    fn delete(&self, context: u32) {
        // What is dropped may be the filter's own, and is dropped when nothing is borrowed.
        let stream = self.streams.borrow_mut().remove(context);
        let is_root = stream.is_none();
        drop(stream);
        if is_root {
            drop(self.take_filter(context));
        }
    }

    /// Makes a filter from the configuration that the host holds; whether it took that.
    fn configure<C: DeserializeOwned>(&self, root: u32, len: u32, new: impl FnOnce(C) -> Result<F>) -> bool {
        match configuration(len).and_then(new) {
            Ok(filter) => {
                drop(self.take_filter(root));
                self.filters.borrow_mut().push((root, Rc::new(filter)));
                true
            }
            Err(error) => {
                crate::error!("configuration: {error}");
                false
            }
        }
    }

    fn root(&self, context: u32) -> Option<u32> {
        self.streams.borrow().get(context).map(|stream| stream.root)
    }

    fn filter(&self, root: u32) -> Option<Rc<F>> {
        self.filters.borrow().iter().find(|(of, _)| *of == root).map(|(_, filter)| Rc::clone(filter))
    }

    fn take_filter(&self, root: u32) -> Option<Rc<F>> {
        let mut filters = self.filters.borrow_mut();
        let place = filters.iter().position(|(of, _)| *of == root)?;
        Some(filters.swap_remove(place).1)
    }

    /// What the filter remembers of a stream. It is out of the map meanwhile, so that no borrow is held while the filter
    /// runs; who remembers nothing can do so any number of times.
    fn lend(&self, context: u32) -> Lending<F, S> {
        let (root, state) = match self.streams.borrow_mut().get_mut(context) {
            Some(found) => (found.root, found.state.take()),
            None => return Lending::Nothing,
        };
        let Some(filter) = self.filter(root) else { return Lending::Nothing };
        match state {
            Some(state) => Lending::Lent(filter, state),
            None if size_of::<S>() == 0 => Lending::Lent(filter, S::default()),
            None => Lending::Busy,
        }
    }

    fn give_back(&self, context: u32, state: S) {
        if let Some(found) = self.streams.borrow_mut().get_mut(context) {
            found.state = Some(state);
        }
    }

    /// Runs `f` on the filter and the state of a stream.
    fn with<T>(&self, context: u32, f: impl FnOnce(&F, &mut S) -> T) -> Option<T> {
        let Lending::Lent(filter, mut state) = self.lend(context) else { return None };
        let result = f(&filter, &mut state);
        self.give_back(context, state);
        Some(result)
    }

    fn tick(&self, root: u32, f: impl FnOnce(&F)) {
        if let Some(filter) = self.filter(root) {
            f(&filter);
        }
    }
}

/// What becomes of asking for the state of a stream.
enum Lending<F, S> {
    Lent(Rc<F>, S),
    /// It is lent to another.
    Busy,
    /// There is no such stream, or no filter for it.
    Nothing,
}

fn configuration<C: DeserializeOwned>(len: u32) -> Result<C> {
    let bytes = if len == 0 {
        Vec::new()
    } else {
        raw::buffer(BufferKind::PluginConfiguration, 0, len as usize)
            .map_err(|status| Error::host("reading the configuration", status))?
    };
    parse_configuration(&bytes)
}

/// No configuration is an empty one.
fn parse_configuration<C: DeserializeOwned>(bytes: &[u8]) -> Result<C> {
    if bytes.is_empty() {
        return json::read(b"{}").or_else(|error| json::read(b"null").map_err(|_| error));
    }
    json::read(bytes)
}

/// The runtime of an HTTP filter.
pub struct HttpRuntime<F: HttpFilter> {
    contexts: Contexts<F, F::Stream>,
}

/// Where a module keeps its runtime.
pub type HttpKey<F> = LocalKey<HttpRuntime<F>>;

impl<F: HttpFilter> Default for HttpRuntime<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: HttpFilter> HttpRuntime<F> {
    pub const fn new() -> Self {
        Self { contexts: Contexts::new() }
    }

    /// Whether the filter may await something. If not, nothing of what that needs is in its module.
    const AWAITS: bool = F::AWAITS != 0;

    pub fn on_context_create(&self, context: u32, parent: u32) {
        self.contexts.create(context, parent);
    }

    pub fn on_configure(&self, context: u32, len: u32, ticks: bool) -> u32 {
        if Self::AWAITS {
            task::enter(context);
        }
        let configured = self.contexts.configure(context, len, F::new);
        if configured && ticks {
            start_ticking(context, F::TICK, Self::AWAITS);
        }
        if Self::AWAITS {
            flow::drain();
        }
        configured.into()
    }

    pub fn on_delete(&self, context: u32) {
        if Self::AWAITS {
            flow::end(context);
            task::delete(context);
            timer::delete(context);
        }
        self.contexts.delete(context);
    }

    pub fn on_tick(&self, context: u32) {
        if !Self::AWAITS {
            return self.contexts.tick(context, F::on_tick);
        }
        task::enter(context);
        if timer::ticked(context) {
            self.contexts.tick(context, F::on_tick);
        }
        flow::drain();
        timer::rearm(context);
    }

    pub fn on_http_call_response(&self, context: u32, token: u32, headers: u32, body: u32, trailers: u32) {
        task::enter(context);
        http::answered(token, http::Counts { headers, body, trailers });
        flow::drain();
    }

    pub fn on_grpc_receive(&self, context: u32, token: u32, len: u32) {
        task::enter(context);
        grpc::received(token, len);
        flow::drain();
    }

    pub fn on_grpc_close(&self, context: u32, token: u32, status: u32) {
        task::enter(context);
        grpc::closed(token, status);
        flow::drain();
    }

    pub fn on_queue_ready(&self, context: u32, queue: u32) {
        task::enter(context);
        queue::ready(queue);
        flow::drain();
    }

    pub fn on_log(&self, context: u32) {
        if Self::AWAITS {
            flow::end(context);
        }
        self.contexts.with(context, |filter, stream| {
            filter.on_log(&Request::new(false), &Response::new(false), stream)
        });
    }

    pub fn on_headers(key: &'static HttpKey<F>, context: u32, side: Side, last: u32) -> u32 {
        Self::event(key, context, side, Event::Headers { last: last != 0 })
    }

    pub fn on_body(key: &'static HttpKey<F>, context: u32, side: Side, len: u32, last: u32) -> u32 {
        Self::event(key, context, side, Event::Body { len, last: last != 0 })
    }

    pub fn on_trailers(key: &'static HttpKey<F>, context: u32, side: Side) -> u32 {
        Self::event(key, context, side, Event::Trailers)
    }

    fn event(key: &'static HttpKey<F>, context: u32, side: Side, event: Event) -> u32 {
        if Self::AWAITS {
            return if flow::event(key, context, side, event) { CONTINUE } else { PAUSE };
        }
        let begun = match event {
            Event::Headers { last } => ask(key, context, side, Phase::Headers { last }, None),
            Event::Body { len, last } => {
                ask(key, context, side, Phase::Body, Some(Body::new(side.body(), len, last)))
            }
            Event::Trailers => ask(key, context, side, Phase::Trailers, None),
        };
        match begun {
            Begun::Done(Ok(Action::Continue)) => CONTINUE,
            Begun::Done(Ok(Action::Reply(reply))) => answer(&reply),
            Begun::Done(Err(error)) => answer(&flow::failed(&error)),
            Begun::Done(Ok(Action::Pause)) | Begun::Later(_) | Begun::Busy => PAUSE,
        }
    }
}

/// Sends a reply; the message does not go on.
fn answer(reply: &Reply) -> u32 {
    flow::send(reply);
    PAUSE
}

impl<F: HttpFilter> Phases for HttpKey<F> {
    fn root(&'static self, context: u32) -> Option<u32> {
        self.with(|runtime| runtime.contexts.root(context))
    }

    fn begin(&'static self, context: u32, side: Side, phase: Phase, flow: &Rc<Flow>) -> Begun {
        ask(self, context, side, phase, Some(Body::of_flow(side.body(), Rc::clone(flow))))
    }
}

/// What a filter remembers of a stream, as long as a method of it has that.
struct Lent<F: HttpFilter> {
    key: &'static HttpKey<F>,
    context: u32,
    filter: Rc<F>,
    state: F::Stream,
}

impl<F: HttpFilter> Drop for Lent<F> {
    fn drop(&mut self) {
        let state = std::mem::take(&mut self.state);
        self.key.with(|runtime| runtime.contexts.give_back(self.context, state));
    }
}

/// Asks the filter about a phase, by the method that it has for it.
fn ask<F: HttpFilter>(
    key: &'static HttpKey<F>,
    context: u32,
    side: Side,
    phase: Phase,
    body: Option<Body>,
) -> Begun {
    let (filter, state) = match key.with(|runtime| runtime.contexts.lend(context)) {
        Lending::Lent(filter, state) => (filter, state),
        Lending::Busy => return Begun::Busy,
        Lending::Nothing => return Begun::Done(Ok(Action::Continue)),
    };
    let mut lent = Lent { key, context, filter, state };
    let mut body = body.unwrap_or_else(|| Body::new(side.body(), 0, false));
    // One arm for each method. What a filter does not implement is ready, and comes to nothing.
    macro_rules! method {
        ($method:ident, $bit:ident, $($argument:expr),*) => {
            start(F::AWAITS & method::$bit != 0, async move {
                lent.filter.$method($($argument,)* &mut lent.state).await
            })
        };
    }
    match (side, phase) {
        (Side::Request, Phase::Headers { last }) if F::METHODS & method::REQUEST != 0 => {
            method!(on_request, REQUEST, &mut Request::new(last), &mut body)
        }
        (Side::Request, Phase::Headers { last }) => {
            method!(on_request_headers, REQUEST_HEADERS, &mut Request::new(last))
        }
        (Side::Request, Phase::Body) => method!(on_request_body, REQUEST_BODY, &mut body),
        (Side::Request, Phase::Trailers) => {
            let mut trailers = Trailers::new(MapKind::HttpRequestTrailers);
            method!(on_request_trailers, REQUEST_TRAILERS, &mut trailers)
        }
        (Side::Response, Phase::Headers { last }) if F::METHODS & method::RESPONSE != 0 => {
            method!(on_response, RESPONSE, &mut Response::new(last), &mut body)
        }
        (Side::Response, Phase::Headers { last }) => {
            method!(on_response_headers, RESPONSE_HEADERS, &mut Response::new(last))
        }
        (Side::Response, Phase::Body) => method!(on_response_body, RESPONSE_BODY, &mut body),
        (Side::Response, Phase::Trailers) => {
            let mut trailers = Trailers::new(MapKind::HttpResponseTrailers);
            method!(on_response_trailers, RESPONSE_TRAILERS, &mut trailers)
        }
    }
}

/// Runs a method that awaits nothing here and now. Another one gets a place of its own, where it can wait.
fn start(awaits: bool, method: impl Future<Output = Result<Action>> + 'static) -> Begun {
    if awaits {
        return Begun::Later(Box::pin(method));
    }
    match pin!(method).poll(&mut std::task::Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Begun::Done(result),
        Poll::Pending => Begun::Done(Err(Error::new("only an `async fn` can await something"))),
    }
}

/// Has the filter's own ticks begin.
fn start_ticking(root: u32, period: Duration, shared: bool) {
    if shared {
        timer::every(root, period);
    } else {
        raw::set_tick(u32::try_from(period.as_millis()).unwrap_or(u32::MAX).max(1));
    }
}

/// The runtime of a network filter.
pub struct NetworkRuntime<F: NetworkFilter> {
    contexts: Contexts<F, F::Stream>,
}

impl<F: NetworkFilter> Default for NetworkRuntime<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: NetworkFilter> NetworkRuntime<F> {
    pub const fn new() -> Self {
        Self { contexts: Contexts::new() }
    }

    pub fn on_context_create(&self, context: u32, parent: u32) {
        self.contexts.create(context, parent);
    }

    pub fn on_configure(&self, context: u32, len: u32, ticks: bool) -> u32 {
        let configured = self.contexts.configure(context, len, F::new);
        if configured && ticks {
            start_ticking(context, F::TICK, false);
        }
        configured.into()
    }

    pub fn on_delete(&self, context: u32) {
        self.contexts.delete(context);
    }

    pub fn on_tick(&self, context: u32) {
        self.contexts.tick(context, F::on_tick);
    }

    pub fn on_new_connection(&self, context: u32) -> u32 {
        self.act(context, |filter, stream| filter.on_new_connection(&mut Connection(()), stream))
    }

    pub fn on_downstream_data(&self, context: u32, len: u32, last: u32) -> u32 {
        let mut data = Body::new(BufferKind::DownstreamData, len, last != 0);
        self.act(context, |filter, stream| filter.on_downstream_data(&mut data, stream))
    }

    pub fn on_upstream_data(&self, context: u32, len: u32, last: u32) -> u32 {
        let mut data = Body::new(BufferKind::UpstreamData, len, last != 0);
        self.act(context, |filter, stream| filter.on_upstream_data(&mut data, stream))
    }

    pub fn on_downstream_close(&self, context: u32, by: u32) {
        let by = PeerKind::try_from(by).unwrap_or(PeerKind::Unknown);
        self.contexts.with(context, |filter, stream| filter.on_downstream_close(by, stream));
    }

    pub fn on_upstream_close(&self, context: u32, by: u32) {
        let by = PeerKind::try_from(by).unwrap_or(PeerKind::Unknown);
        self.contexts.with(context, |filter, stream| filter.on_upstream_close(by, stream));
    }

    fn act(&self, context: u32, f: impl FnOnce(&F, &mut F::Stream) -> Result<ConnectionAction>) -> u32 {
        match self.contexts.with(context, f) {
            Some(Ok(ConnectionAction::Continue)) | None => return CONTINUE,
            Some(Ok(ConnectionAction::Pause)) => return PAUSE,
            Some(Ok(ConnectionAction::Close)) => {}
            Some(Err(error)) => crate::error!("{error}"),
        }
        if let Err(status) = raw::close_stream(StreamKind::Downstream) {
            crate::error!("a connection could not be closed: the host answered {status:?}");
        }
        PAUSE
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[serde(default)]
        limit: u32,
    }

    #[test]
    fn no_configuration_is_an_empty_one() {
        assert_eq!(parse_configuration::<Config>(b""), Ok(Config { limit: 0 }));
        assert_eq!(parse_configuration::<()>(b""), Ok(()));
    }

    #[test]
    fn a_configuration_that_does_not_fit_is_told_with_its_place() {
        let error = parse_configuration::<Config>(b"{\"limt\": 3}").expect_err("a slip");
        assert!(error.to_string().contains("unknown field `limt`, expected `limit` at line 1"), "{error}");
    }
}
