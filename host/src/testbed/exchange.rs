//! One HTTP exchange in a bed. It passes the same chain, in the same order, as in `proxy/exchange.rs`; where that one
//! reads and writes sockets, this one takes from a list and notes down.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use weir_abi::TCP_PROXY_CLUSTER;

use crate::clock::Timers;
use crate::config::metadata::ClusterFacts;
use crate::http::marks::Marks;
use crate::http::message::{Request, Response, Scheme, Version, strip_hop_by_hop};
use crate::net::connection::Connection;
use crate::plugin::abi::property;
use crate::plugin::chain::data::Passed;
use crate::plugin::chain::{Chain, Half, Stop};
use crate::plugin::outside::Outside;
use crate::plugin::stream::{LocalReply, RouteFacts, SharedStream, Stream as StreamState, Upstream};
use crate::proxy::reply::render;
use crate::proxy::request::prepare;
use crate::testbed::bed::{Bed, Stage};
use crate::testbed::facts::{ConnectionFacts, Protocol, RequestFacts, ResponseFacts, RouteInfo, default_of};
use crate::testbed::message::Body;
use crate::testbed::seen::{Seen, SeenRequest, SeenResponse};

/// What a filter may hold of a body: the default of `max_buffered_body`.
const MAX_HELD: usize = 1 << 20;

impl Bed {
    /// Runs one exchange. `properties`: the paths of those that are to be noted down at its end, as in `request.path`.
    ///
    /// # Errors
    /// When the request or the response is none.
    pub fn exchange(
        &mut self,
        connection: Option<&ConnectionFacts>,
        route: Option<&RouteInfo>,
        request: &RequestFacts,
        response: Option<&ResponseFacts>,
        properties: &[&str],
    ) -> anyhow::Result<Seen> {
        let (facts, plain) = (connection.cloned(), default_of::<ConnectionFacts>);
        let connection = self.stage.connect(&facts.unwrap_or_else(plain));
        let (default_route, default_response) = (default_of(), default_of());
        let (route, response) = (route.unwrap_or(&default_route), response.unwrap_or(&default_response));
        let status = StatusCode::from_u16(*response.status).context("the upstream's status is none")?;
        let request = prepared(request, &connection)?;
        // Within the runtime: a filter may call out as soon as it has a context.
        let exchanged = self.run(async {
            Exchange::begin(&self.stage, &connection, route, request).run(response, status, properties).await
        });
        let mut seen = exchanged.unwrap_or_else(|| Seen { stuck: true, ..Seen::default() });
        self.see(&mut seen);
        Ok(seen)
    }
}

impl Stage {
    /// A new connection.
    pub(super) fn connect(&mut self, facts: &ConnectionFacts) -> Arc<Connection> {
        self.streams += 1;
        facts.make(self.streams, self.world.wall())
    }
}

/// Notes down the properties that were asked for.
pub(super) fn note_properties(stream: &StreamState, paths: &[&str], seen: &mut Seen) {
    for path in paths {
        let joined = path.replace('.', "\0");
        let found = property(stream, joined.as_bytes()).or_else(|| property(stream, path.as_bytes()));
        seen.properties.insert((*path).to_owned(), found);
    }
}

/// The cluster that a filter chose for a connection or, by its filter state, for a request.
pub(super) fn note_cluster(stream: &StreamState, seen: &mut Seen) {
    let chosen = stream.info.state.get(TCP_PROXY_CLUSTER.as_bytes());
    seen.cluster = chosen.map(|name| String::from_utf8_lossy(name).into_owned());
}

struct Exchange {
    timers: Rc<Timers>,
    stream: SharedStream,
    endpoint: SocketAddr,
    chain: Chain,
    begun: Result<(), Stop>,
    body: Frames,
    seen: Seen,
    /// Whether the client has been sent the head of a response.
    answered: bool,
}

impl Exchange {
    fn begin(
        stage: &Stage,
        connection: &Arc<Connection>,
        route: &RouteInfo,
        (request, body): (Request, Frames),
    ) -> Self {
        let stream = StreamState::new(Arc::clone(connection));
        {
            let mut state = stream.borrow_mut();
            state.request = Some(request);
            state.info.began_at = Some(stage.world.wall());
            let cluster: Arc<str> = route.cluster.as_str().into();
            let metadata = route.cluster_metadata.clone();
            let cluster = Some(Arc::new(ClusterFacts { name: cluster, metadata }));
            let (name, metadata) = (route.name.as_str().into(), route.metadata.clone());
            state.info.route = Some(Arc::new(RouteFacts { name, metadata, cluster }));
            state.info.endpoints = Some(1);
        }
        let (chain, begun) = Chain::begin(stage.filters.iter().cloned(), &stream, &stage.timers);
        let timers = Rc::clone(&stage.timers);
        let endpoint = route.endpoint;
        Self { timers, stream, endpoint, chain, begun, body, seen: Seen::default(), answered: false }
    }

    /// From the request's arrival to the end of its answer.
    async fn run(mut self, response: &ResponseFacts, status: StatusCode, properties: &[&str]) -> Seen {
        let begun = std::mem::replace(&mut self.begun, Ok(()));
        let ended = match begun {
            Ok(()) => self.forward(response, status).await,
            Err(stop) => Err(stop),
        };
        if let Err(stop) = ended {
            self.stopped(stop).await;
        }
        {
            let stream = self.stream.borrow();
            note_properties(&stream, properties, &mut self.seen);
            note_cluster(&stream, &mut self.seen);
            self.seen.details = stream.info.details.as_deref().map(str::to_owned);
        }
        self.chain.finish();
        self.seen
    }

    async fn forward(&mut self, facts: &ResponseFacts, status: StatusCode) -> Result<(), Stop> {
        let mut body = std::mem::take(&mut self.body);
        let end = body.is_done();
        self.headers(Half::Received, &mut body).await?;
        self.seen.request = self.stream.borrow().request.as_ref().map(SeenRequest::of);
        if !end {
            let (data, trailers) = self.body(Half::Received, body).await?;
            if let Some(request) = &mut self.seen.request {
                (request.body, request.trailers) = (data, trailers);
            }
        }
        self.pick();
        let timer = self.timers.timer();
        timer.set(facts.after);
        if !facts.after.is_zero() {
            self.chain.unless_stopped(timer.limit(std::future::pending::<()>())).await?;
        }
        let mut response = Response { status, headers: facts.headers.0.clone() };
        let marks = Marks::of(&response.headers);
        strip_hop_by_hop(&mut response.headers, marks);
        self.stream.borrow_mut().response = Some(response);
        let mut body = Frames::of(&facts.body, &facts.trailers.0);
        let end = body.is_done();
        self.headers(Half::Answered, &mut body).await?;
        if end {
            self.start_response(false);
            return Ok(());
        }
        // As on the wire: what the client has been sent of it cannot be taken back by an answer of Weir's own.
        let (data, trailers) = self.body(Half::Answered, body).await?;
        self.start_response(false);
        if let Some(response) = &mut self.seen.response {
            (response.body, response.trailers) = (data, trailers);
        }
        Ok(())
    }

    /// The cluster of the route becomes that of the stream.
    fn pick(&self) {
        let info = &mut self.stream.borrow_mut().info;
        info.upstream = Some(Upstream { address: self.endpoint, local: None, tls: None });
        info.cluster = info.route.as_ref().and_then(|route| route.cluster.clone());
    }

    /// Shows the headers of a half to the filter, which may want to see the body before it lets them go.
    async fn headers(&mut self, half: Half, body: &mut Frames) -> Result<(), Stop> {
        let end = body.is_done();
        let chain = &mut self.chain;
        poll_fn(|cx| {
            loop {
                let headers = chain.poll_headers(half, end, cx);
                if headers.is_ready() {
                    return headers;
                }
                if !chain.reads_ahead(half) || body.is_done() || chain.is_full(half) {
                    return Poll::Pending;
                }
                // Nothing passes before the headers have.
                body.feed(chain, half)?;
            }
        })
        .await
    }

    /// Shows a body to the filter, and gathers what passes.
    async fn body(&mut self, half: Half, mut body: Frames) -> Result<(Vec<u8>, HeaderMap), Stop> {
        let mut whole = Vec::new();
        let filtered = self.chain.wants_data(half) || self.chain.holds(half);
        loop {
            let chain = &mut self.chain;
            let moved = poll_fn(|cx| poll_passed(chain, half, &mut body, filtered, cx)).await?;
            match moved {
                Passed::Held => {}
                Passed::Data(data, end) => {
                    whole.extend_from_slice(&data);
                    if half == Half::Answered && !data.is_empty() && !end {
                        self.start_response(false);
                    }
                    if end {
                        return Ok((whole, HeaderMap::new()));
                    }
                }
                Passed::End(data, trailers) => {
                    whole.extend_from_slice(&data);
                    return Ok((whole, trailers));
                }
            }
        }
    }

    /// The client gets the head of the response.
    fn start_response(&mut self, local: bool) {
        if !std::mem::replace(&mut self.answered, true) {
            self.seen.response =
                self.stream.borrow().response.as_ref().map(|response| SeenResponse::of(response, local));
        }
    }

    /// A filter has ended the exchange.
    async fn stopped(&mut self, stop: Stop) {
        let reply = match stop {
            Stop::Reply(reply) if !self.answered => reply,
            Stop::Reply(_) | Stop::Reset(_) => {
                (self.seen.closed, self.seen.response) = (true, None);
                return;
            }
        };
        // What filters say to a response is not for filters to see.
        if self.stream.borrow().response.is_some() {
            return self.reply_directly(reply);
        }
        match self.filter_reply(reply).await {
            Ok(()) => {}
            Err(Stop::Reply(reply)) if !self.answered => self.reply_directly(reply),
            Err(Stop::Reply(_) | Stop::Reset(_)) => (self.seen.closed, self.seen.response) = (true, None),
        }
    }

    fn reply_directly(&mut self, reply: LocalReply) {
        let (response, body) = render(reply, self.stream.borrow().request.as_ref());
        self.stream.borrow_mut().response = Some(response);
        self.send_whole(&body);
    }

    fn send_whole(&mut self, body: &[u8]) {
        self.start_response(true);
        if let Some(response) = &mut self.seen.response {
            response.body = body.to_vec();
        }
    }

    async fn filter_reply(&mut self, reply: LocalReply) -> Result<(), Stop> {
        let (response, body) = render(reply, self.stream.borrow().request.as_ref());
        self.stream.borrow_mut().response = Some(response);
        let mut frames = Frames::of(&Body(vec![body]), &HeaderMap::new());
        let end = frames.is_done();
        self.headers(Half::Answered, &mut frames).await?;
        let (data, _) = if end && !self.chain.holds(Half::Answered) {
            Default::default()
        } else {
            self.body(Half::Answered, frames).await?
        };
        self.send_whole(&data);
        Ok(())
    }
}

/// The next piece that has passed the filters, or what has come of showing them another.
fn poll_passed(
    chain: &mut Chain,
    half: Half,
    body: &mut Frames,
    filtered: bool,
    cx: &mut Context<'_>,
) -> Poll<Result<Passed, Stop>> {
    if let Poll::Ready(stop) = chain.poll_interrupt(cx) {
        return Poll::Ready(Err(stop));
    }
    if !filtered {
        return body.pass().map_or(Poll::Pending, |passed| Poll::Ready(Ok(passed)));
    }
    if let Poll::Ready(passed) = chain.poll_resumed(half, cx) {
        return Poll::Ready(passed);
    }
    if body.is_done() || chain.is_full(half) {
        return Poll::Pending;
    }
    Poll::Ready(body.feed(chain, half))
}

/// A body that comes in pieces.
#[derive(Default)]
struct Frames {
    pieces: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Frames {
    fn of(body: &Body, trailers: &HeaderMap) -> Self {
        let pieces = body.0.iter().filter(|piece| !piece.is_empty()).cloned().collect();
        Self { pieces, trailers: (!trailers.is_empty()).then(|| trailers.clone()) }
    }

    fn is_done(&self) -> bool {
        self.pieces.is_empty() && self.trailers.is_none()
    }

    /// The next piece, without filters.
    fn pass(&mut self) -> Option<Passed> {
        match self.pieces.pop_front() {
            Some(piece) => Some(Passed::Data(piece, self.is_done())),
            None => self.trailers.take().map(|trailers| Passed::End(Bytes::new(), trailers)),
        }
    }

    /// Shows the next piece to the filters.
    fn feed(&mut self, chain: &mut Chain, half: Half) -> Result<Passed, Stop> {
        match self.pass() {
            Some(Passed::Data(piece, end)) => chain.on_data(half, piece, end, MAX_HELD),
            Some(Passed::End(_, trailers)) => chain.on_trailers(half, trailers, MAX_HELD),
            Some(Passed::Held) | None => Ok(Passed::Held),
        }
    }
}

/// A request as Weir has it when its filters begin, and its body.
fn prepared(facts: &RequestFacts, connection: &Connection) -> anyhow::Result<(Request, Frames)> {
    let mut request = request(facts, connection)?;
    let marks = Marks::of(&request.headers);
    prepare(&mut request, marks, connection, &[]);
    Ok((request, Frames::of(&facts.body, &facts.trailers.0)))
}

fn request(facts: &RequestFacts, connection: &Connection) -> anyhow::Result<Request> {
    let value =
        |text: &str| HeaderValue::from_bytes(text.as_bytes()).context("it has control characters in it");
    let encrypted = connection.tls.as_ref().is_some_and(|tls| !tls.version.is_empty());
    Ok(Request {
        method: Method::from_bytes(facts.method.as_bytes()).context("the request's `method` is none")?,
        scheme: if encrypted { Scheme::Https } else { Scheme::Http },
        authority: value(&facts.host).context("the request's `host`")?,
        path: value(&facts.path).context("the request's `path`")?,
        version: match facts.protocol {
            Protocol::Http11 => Version::Http11,
            Protocol::Http2 => Version::Http2,
        },
        headers: facts.headers.0.clone(),
    })
}
