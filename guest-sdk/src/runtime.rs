//! From callbacks to filters: which filter and which stream a context id stands for.
#![expect(missing_docs, reason = "the callbacks of the contract, by their names")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::rc::Rc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use weir_abi::{BufferKind, IdHasher, MapKind, PeerKind, StreamKind};

use crate::body::Body;
use crate::error::{Error, Result};
use crate::headers::Trailers;
use crate::http::{Action, HttpFilter, Request, Response};
use crate::network::{Connection, ConnectionAction, NetworkFilter};
use crate::raw;
use crate::reply::Reply;

const CONTINUE: u32 = weir_abi::Action::Continue as u32;
const PAUSE: u32 = weir_abi::Action::Pause as u32;

/// The filters of a module and their streams. A VM may hold several filters of one module, each with its own
/// configuration.
struct Contexts<F, S> {
    filters: RefCell<ById<Rc<F>>>,
    streams: RefCell<ById<Context<S>>>,
}

/// A stream: its root context, and its state unless the filter has that just now.
struct Context<S> {
    root: u32,
    state: Option<S>,
}

/// By context id.
type ById<T> = HashMap<u32, T, BuildHasherDefault<IdHasher>>;

impl<F, S: Default> Contexts<F, S> {
    const fn new() -> Self {
        Self {
            filters: RefCell::new(ById::with_hasher(BuildHasherDefault::new())),
            streams: RefCell::new(ById::with_hasher(BuildHasherDefault::new())),
        }
    }

    fn create(&self, context: u32, parent: u32) {
        if parent != 0 {
            self.streams.borrow_mut().insert(context, Context { root: parent, state: Some(S::default()) });
        }
    }

    fn delete(&self, context: u32) {
        self.streams.borrow_mut().remove(&context);
        self.filters.borrow_mut().remove(&context);
    }

    /// Makes a filter from the configuration that the host holds; 0 refuses.
    fn configure<C: DeserializeOwned>(
        &self,
        root: u32,
        len: u32,
        new: impl FnOnce(C) -> Result<F>,
        tick: Option<Duration>,
    ) -> u32 {
        match configuration(len).and_then(new) {
            Ok(filter) => {
                self.filters.borrow_mut().insert(root, Rc::new(filter));
                if let Some(tick) = tick {
                    raw::set_tick(u32::try_from(tick.as_millis()).unwrap_or(u32::MAX).max(1));
                }
                1
            }
            Err(error) => {
                crate::error!("configuration: {error}");
                0
            }
        }
    }

    /// Runs `f` on the filter and the state of a stream. The state is out of the map meanwhile, so that no
    /// borrow is held while the filter runs.
    fn with<T>(&self, context: u32, f: impl FnOnce(&F, &mut S) -> T) -> Option<T> {
        let (root, mut state) = {
            let mut streams = self.streams.borrow_mut();
            let found = streams.get_mut(&context)?;
            (found.root, found.state.take()?)
        };
        let filter = self.filters.borrow().get(&root).cloned();
        let result = filter.map(|filter| f(&filter, &mut state));
        if let Some(found) = self.streams.borrow_mut().get_mut(&context) {
            found.state = Some(state);
        }
        result
    }

    fn tick(&self, root: u32, f: impl FnOnce(&F)) {
        let filter = self.filters.borrow().get(&root).cloned();
        if let Some(filter) = filter {
            f(&filter);
        }
    }
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
        return serde_json::from_str("{}")
            .or_else(|error| serde_json::from_str("null").map_err(|_| error.into()));
    }
    Ok(serde_json::from_slice(bytes)?)
}

/// The runtime of an HTTP filter.
pub struct HttpRuntime<F: HttpFilter> {
    contexts: Contexts<F, F::Stream>,
}

impl<F: HttpFilter> Default for HttpRuntime<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: HttpFilter> HttpRuntime<F> {
    pub const fn new() -> Self {
        Self { contexts: Contexts::new() }
    }

    pub fn on_context_create(&self, context: u32, parent: u32) {
        self.contexts.create(context, parent);
    }

    pub fn on_configure(&self, context: u32, len: u32, ticks: bool) -> u32 {
        self.contexts.configure(context, len, F::new, ticks.then_some(F::TICK))
    }

    pub fn on_delete(&self, context: u32) {
        self.contexts.delete(context);
    }

    pub fn on_tick(&self, context: u32) {
        self.contexts.tick(context, F::on_tick);
    }

    pub fn on_request_headers(&self, context: u32, last: u32) -> u32 {
        self.act(context, |filter, stream| filter.on_request_headers(&mut Request::new(last), stream))
    }

    pub fn on_request_body(&self, context: u32, len: u32, last: u32) -> u32 {
        let mut body = Body::new(BufferKind::HttpRequestBody, len, last);
        self.act(context, |filter, stream| filter.on_request_body(&mut body, stream))
    }

    pub fn on_request_trailers(&self, context: u32) -> u32 {
        let mut trailers = Trailers::new(MapKind::HttpRequestTrailers);
        self.act(context, |filter, stream| filter.on_request_trailers(&mut trailers, stream))
    }

    pub fn on_response_headers(&self, context: u32, last: u32) -> u32 {
        self.act(context, |filter, stream| filter.on_response_headers(&mut Response::new(last), stream))
    }

    pub fn on_response_body(&self, context: u32, len: u32, last: u32) -> u32 {
        let mut body = Body::new(BufferKind::HttpResponseBody, len, last);
        self.act(context, |filter, stream| filter.on_response_body(&mut body, stream))
    }

    pub fn on_response_trailers(&self, context: u32) -> u32 {
        let mut trailers = Trailers::new(MapKind::HttpResponseTrailers);
        self.act(context, |filter, stream| filter.on_response_trailers(&mut trailers, stream))
    }

    pub fn on_log(&self, context: u32) {
        self.contexts
            .with(context, |filter, stream| filter.on_log(&Request::new(0), &Response::new(0), stream));
    }

    fn act(&self, context: u32, f: impl FnOnce(&F, &mut F::Stream) -> Result<Action>) -> u32 {
        match self.contexts.with(context, f) {
            Some(Ok(Action::Continue)) | None => CONTINUE,
            Some(Ok(Action::Pause)) => PAUSE,
            Some(Ok(Action::Reply(reply))) => send(&reply),
            Some(Err(error)) => {
                crate::error!("{error}");
                send(&Reply::new(500).details("filter_error"))
            }
        }
    }
}

/// Sends a reply. Whatever the host says to it, the message does not go on.
fn send(reply: &Reply) -> u32 {
    if let Err(status) = reply.send() {
        crate::error!("a reply could not be sent: the host answered {status:?}");
    }
    PAUSE
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
        self.contexts.configure(context, len, F::new, ticks.then_some(F::TICK))
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
        let mut data = Body::new(BufferKind::DownstreamData, len, last);
        self.act(context, |filter, stream| filter.on_downstream_data(&mut data, stream))
    }

    pub fn on_upstream_data(&self, context: u32, len: u32, last: u32) -> u32 {
        let mut data = Body::new(BufferKind::UpstreamData, len, last);
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
