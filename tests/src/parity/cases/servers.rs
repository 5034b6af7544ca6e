//! The servers of a case: the upstream, and the clusters that the filter calls or chooses.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use weir::testbed::{Call, CallReply, ResponseFacts, Seen, SeenCall, SeenRequest, default_of};

use crate::http::{Body, upstream, with_trailers};
use crate::parity::cases::Plan;
use crate::upstream::Upstream;

/// The servers, running.
pub(super) struct Servers {
    /// By the names of their clusters: `up` is where requests go that no filter sends elsewhere.
    servers: Vec<(String, Server)>,
    state: Arc<Mutex<State>>,
    /// Connections of network filters that have come to a cluster.
    pub(super) accepted: tokio::sync::Mutex<mpsc::UnboundedReceiver<(String, TcpStream)>>,
}

enum Server {
    Runs(Upstream),
    /// Nobody listens there.
    Nowhere(SocketAddr),
}

/// What is answered, and what was asked.
struct State {
    response: ResponseFacts,
    planned: Vec<(Call, u32)>,
    request: Option<SeenRequest>,
    calls: Vec<SeenCall>,
    unanswered: Vec<String>,
}

impl Servers {
    pub(super) async fn start(plan: &Plan<'_>) -> Self {
        let planned = plan.setting.calls.iter().map(|call| (call.clone(), 0)).collect();
        let state = State {
            response: default_of(),
            planned,
            request: None,
            calls: Vec::new(),
            unanswered: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let (tell, accepted) = mpsc::unbounded_channel();
        let fails = plan.setting.calls.iter().any(|call| call.answer.fails);
        let grpc = plan.speaks_grpc();
        let mut servers = Vec::new();
        for name in std::iter::once("up").chain(plan.clusters()) {
            let (own, cluster) = (Arc::clone(&state), name.to_owned());
            let server = match name {
                _ if plan.tcp => Server::Runs(connections(cluster, tell.clone()).await),
                "up" => Server::Runs(upstream(move |request| forwarded(request, Arc::clone(&own))).await),
                _ if fails => Server::Nowhere(Upstream::nowhere().await),
                _ => Server::Runs(
                    upstream(move |request| called(request, cluster.clone(), grpc, Arc::clone(&own))).await,
                ),
            };
            servers.push((name.to_owned(), server));
        }
        Self { servers, state, accepted: tokio::sync::Mutex::new(accepted) }
    }

    /// Where they are.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.servers.iter().map(|(name, server)| match server {
            Server::Runs(upstream) => (name.as_str(), upstream.address),
            Server::Nowhere(address) => (name.as_str(), *address),
        })
    }

    /// From now on the upstream answers with this.
    pub(super) fn answer(&self, response: ResponseFacts) {
        lock(&self.state).response = response;
    }

    /// What they have seen since they were last asked.
    pub(super) fn take(&self, seen: &mut Seen) {
        let mut state = lock(&self.state);
        seen.request = state.request.take();
        seen.calls = std::mem::take(&mut state.calls);
        seen.unanswered = std::mem::take(&mut state.unanswered);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no server panics")
}

/// Hands every connection to the test.
async fn connections(cluster: String, tell: mpsc::UnboundedSender<(String, TcpStream)>) -> Upstream {
    Upstream::new(move |socket| {
        // A test that is over wants no more of them.
        let _ = tell.send((cluster.clone(), socket));
        std::future::ready(())
    })
    .await
}

/// A request as it came.
async fn received(request: Request<Incoming>) -> SeenRequest {
    let (parts, body) = request.into_parts();
    let collected = body.collect().await.ok();
    let trailers = collected.as_ref().and_then(|body| body.trailers().cloned()).unwrap_or_default();
    let host = parts.headers.get("host").map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let mut headers = parts.headers;
    for name in ["host", CONTENT_LENGTH.as_str(), TRANSFER_ENCODING.as_str()] {
        headers.remove(name);
    }
    SeenRequest {
        method: parts.method.to_string(),
        host: host.or_else(|| parts.uri.authority().map(ToString::to_string)).unwrap_or_default(),
        path: parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        headers,
        body: collected.map(|body| body.to_bytes().to_vec()).unwrap_or_default(),
        trailers,
    }
}

async fn forwarded(request: Request<Incoming>, state: Arc<Mutex<State>>) -> Response<Body> {
    let request = received(request).await;
    let response = {
        let mut state = lock(&state);
        state.request = Some(request);
        state.response.clone()
    };
    tokio::time::sleep(response.after).await;
    respond(response.status.value, response.headers.0, response.body.whole(), response.trailers.0)
}

fn respond(status: u16, headers: HeaderMap, body: Bytes, trailers: HeaderMap) -> Response<Body> {
    let body = if trailers.is_empty() { crate::http::full(body) } else { with_trailers(body, trailers) };
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(status).expect("a case has a status");
    *response.headers_mut() = headers;
    response
}

async fn called(
    request: Request<Incoming>,
    cluster: String,
    grpc: bool,
    state: Arc<Mutex<State>>,
) -> Response<Body> {
    let mut request = received(request).await;
    let method = grpc.then(|| request.path.trim_start_matches('/').to_owned());
    if grpc {
        request.body = messages(&request.body);
    }
    let Some(reply) = reply(&cluster, request, method, &mut lock(&state)) else {
        return respond(500, HeaderMap::new(), Bytes::new(), HeaderMap::new());
    };
    tokio::time::sleep(reply.after).await;
    if !grpc {
        return respond(reply.status.value, reply.headers.0, reply.body.whole(), reply.trailers.0);
    }
    let (mut headers, mut trailers) = (reply.headers.0, reply.trailers.0);
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    trailers.insert("grpc-status", reply.grpc_status.into());
    if let Ok(message) = HeaderValue::from_str(&reply.grpc_message) {
        trailers.insert("grpc-message", message);
    }
    let framed = reply.body.0.iter().flat_map(|message| {
        let len = u32::try_from(message.len()).expect("a message of a case is small").to_be_bytes();
        [&[0], len.as_slice(), message].concat()
    });
    respond(reply.status.value, headers, framed.collect(), trailers)
}

/// Notes a call down, and finds the answer that is planned for it.
fn reply(cluster: &str, request: SeenRequest, grpc: Option<String>, state: &mut State) -> Option<CallReply> {
    let planned =
        state.planned.iter_mut().find(|(call, used)| call.fits(cluster, &request, grpc.as_deref(), *used));
    let reply = planned.map(|(call, used)| {
        *used += 1;
        call.answer.clone()
    });
    if reply.is_none() {
        state.unanswered.push(format!("{} {} to cluster `{cluster}`", request.method, request.path));
    }
    state.calls.push(SeenCall { cluster: cluster.to_owned(), grpc, request });
    reply
}

/// The messages of a gRPC request, one after the other.
fn messages(mut body: &[u8]) -> Vec<u8> {
    let mut messages = Vec::new();
    while body.len() >= 5 {
        body.advance(1);
        let len = body.get_u32() as usize;
        let message = body.get(..len).unwrap_or(body);
        messages.extend_from_slice(message);
        body.advance(message.len());
    }
    messages
}
