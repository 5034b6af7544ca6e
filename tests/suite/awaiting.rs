//! Filters of our SDK that await something: calls, the clock, bodies. Plain Proxy-Wasm, through the real host.

mod calls;
mod churn;
mod queues;
mod reading;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use tokio::sync::broadcast::{Sender, channel};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use weir_tests::http::{Answer, Body, Client, full, mirror, upstream, with_trailers};
use weir_tests::upstream::Upstream;
use weir_tests::{Gateway, Setup};

/// What the cluster `other` answers: to `/never` nothing, to gRPC a message or a status, to pieces themselves in brackets.
async fn answer(request: Request<Incoming>, never: UnboundedSender<()>, go: Sender<()>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if path == "/held" {
        let mut told = go.subscribe();
        never.send(()).expect("the test listens");
        // A sender that is gone says go, too.
        let _ = told.recv().await;
        return Response::new(full(vec![b'y'; 1000]));
    }
    let asks = request.headers().contains_key("x-asks");
    if path == "/never" {
        // Few tests listen.
        let _ = never.send(());
        return std::future::pending().await;
    }
    let asked = request.into_body().collect().await.expect("a body").to_bytes();
    if path == "/test.Service/Ask" {
        let status = HeaderValue::from_static(if asks { "0" } else { "7" });
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), status)]);
        let message = [b"\0\0\0\0\x0d".as_slice(), b"answered: ", &asked[asked.len() - 3..]].concat();
        let answer = Response::builder().header("content-type", "application/grpc");
        return answer.body(with_trailers(message, trailers)).expect("a response");
    }
    if path == "/piece" {
        return Response::new(full([b"[", asked.as_ref(), b"]"].concat()));
    }
    Response::new(full(format!("{path} {}", String::from_utf8_lossy(&asked))))
}

/// A gateway with one filter, which may call the cluster `other`.
struct Bench {
    gateway: Gateway,
    /// Told of each call that is not answered, or not yet.
    never: UnboundedReceiver<()>,
    /// Has calls that are held answered.
    go: Sender<()>,
    _up: Upstream,
    _other: Upstream,
}

impl Bench {
    async fn new(plugin: &str, settings: &str) -> Self {
        Self::before(mirror().await, plugin, settings).await
    }

    async fn before(up: Upstream, plugin: &str, settings: &str) -> Self {
        let (tell, never) = unbounded_channel();
        let (go, _) = channel(1);
        let tells = go.clone();
        let other = upstream(move |request| answer(request, tell.clone(), tells.clone())).await;
        let config = format!(
            "runtime: {{ workers: 1 }}\n\
             listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: {plugin}, grants: {{ clusters: [other] }}, {settings} }} ], \
               routes: [ {{ cluster: up }} ] }} }} ]\n\
             clusters: [ {{ name: up, endpoints: [\"{}\"], protocol: http2 }}, {{ name: other, endpoints: [\"{}\"], protocol: http2 }} ]",
            up.address, other.address
        );
        let gateway = Setup::new().plugin(plugin).config(config).start();
        Self { gateway, never, go, _up: up, _other: other }
    }

    /// Sends a body with one header.
    async fn post(&self, header: (&str, &str), body: Body) -> Answer {
        let mut client = Client::h2(self.gateway.address("web")).await;
        let request = client.request("POST", "/path").header(header.0, header.1).body(body);
        client.call(request.expect("a request")).await.expect("an answer")
    }
}

/// Sends a piece of a body.
fn feed(feed: &UnboundedSender<Frame<Bytes>>, piece: &'static str) {
    feed.send(Frame::data(piece.into())).expect("it is taken");
}
