//! HTTP/2 on either side, and gRPC through it.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use tokio::sync::mpsc;
use weir_tests::http::{Body, Client, asking, empty, fed, full, mirror, tls_upstream, upstream};
use weir_tests::tls;
use weir_tests::upstream::Upstream;
use weir_tests::wait::{soon, until};
use weir_tests::{Gateway, Setup};

fn gateway(upstream: &Upstream, cluster: &str) -> Gateway {
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] {cluster} }} ]",
        upstream.address
    );
    Setup::new().config(config).start()
}

#[tokio::test]
async fn http2_with_prior_knowledge_reaches_an_http1_upstream() {
    let mirror = mirror().await;
    let gateway = gateway(&mirror, "");
    let mut client = Client::h2(gateway.address("web")).await;
    let request = client.request("POST", "/x").header("x-a", "1").body(full("hello")).expect("a request");
    let answer = client.call(request).await.expect("an answer");
    let text = answer.text();
    assert!(
        text.starts_with("POST /x HTTP/1.1\nhost: example.com\n") && text.ends_with("\n\nhello"),
        "{text}"
    );
    let entry = gateway.wait_for_access("HTTP/2");
    assert_eq!((entry["authority"].as_str(), entry["status"].as_u64()), (Some("example.com"), Some(200)));
}

#[tokio::test]
async fn an_http1_client_reaches_an_http2_upstream() {
    let mirror = mirror().await;
    let gateway = gateway(&mirror, ", protocol: http2");
    let mut client = Client::h1(gateway.address("web")).await;
    for n in 0..3 {
        let request = client.request("POST", &format!("/{n}")).body(full("hello")).expect("a request");
        let text = client.call(request).await.expect("an answer").text();
        assert!(text.starts_with(&format!("POST /{n} HTTP/2.0\nhost: example.com\n")), "{text}");
        assert!(text.ends_with("\n\nhello"), "{text}");
    }
}

#[tokio::test]
async fn a_request_that_meets_an_http2_connection_as_it_is_closed_is_sent_again() {
    let mirror = mirror().await;
    let (between, cutter) = Upstream::cutting(mirror.address).await;
    let gateway = gateway(&between, ", protocol: http2");
    let mut client = Client::h1(gateway.address("web")).await;
    for n in 0..3 {
        assert_eq!(client.get(&format!("/{n}")).await.status, 200);
        cutter.cut();
    }
    // What may not be repeated is not.
    let request = client.request("POST", "/").body(empty()).expect("a request");
    assert_eq!(client.call(request).await.expect("an answer").status, 502);
}

#[tokio::test]
async fn many_streams_share_a_connection_in_both_directions() {
    let upstream = upstream(|request: Request<Incoming>| async move {
        let path = request.uri().path().to_owned();
        Response::new(full(path))
    })
    .await;
    let gateway = gateway(&upstream, ", protocol: http2");
    let client = Client::h2(gateway.address("web")).await;
    let Client::H2(sender) = &client else { panic!("HTTP/2") };
    let calls: Vec<_> = (0..200)
        .map(|n| {
            let mut sender = sender.clone();
            let request = client.request("GET", &format!("/{n}")).body(empty()).expect("a request");
            tokio::spawn(async move {
                sender.ready().await.expect("open");
                let answer = sender.send_request(request).await.expect("an answer");
                let body = answer.into_body().collect().await.expect("a body").to_bytes();
                assert_eq!(body, format!("/{n}"));
            })
        })
        .collect();
    for call in calls {
        soon("a stream", call).await.expect("answered");
    }
}

#[tokio::test]
async fn large_bodies_pass_through_small_windows_unchanged() {
    let upstream = upstream(|request: Request<Incoming>| async move {
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        Response::new(full(body))
    })
    .await;
    for cluster in ["", ", protocol: http2"] {
        let gateway = gateway(&upstream, cluster);
        let mut client = Client::h2(gateway.address("web")).await;
        let body: Vec<u8> = (0..8_u32 << 20).map(|n| (n % 253) as u8).collect();
        let request = client.request("POST", "/").body(full(body.clone())).expect("a request");
        let answer = client.call(request).await.expect("an answer");
        assert!(answer.body == body, "{cluster}");
    }
}

#[tokio::test]
async fn a_stream_that_the_client_resets_is_reset_at_the_upstream_too() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let upstream = upstream(move |request: Request<Incoming>| {
        let tell = tell.clone();
        async move {
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.frame().await {
                let _ = tell.send("data");
            }
            let _ = tell.send("the end");
            std::future::pending::<Response<Body>>().await
        }
    })
    .await;
    let gateway = gateway(&upstream, ", protocol: http2");
    let mut client = Client::h2(gateway.address("web")).await;
    let (feed, body) = fed();
    let request = client.request("POST", "/").body(body).expect("a request");
    let sending = tokio::spawn(async move { client.send(request).await });
    feed.send(Frame::data(Bytes::from_static(b"x"))).expect("open");
    assert_eq!(soon("the upstream to see the body", told.recv()).await, Some("data"));
    sending.abort();
    assert_eq!(soon("the upstream to see the reset", told.recv()).await, Some("the end"));
}

/// A gRPC message on the wire.
fn message(text: &str) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.into()
}

/// A gRPC server with a method of each kind, named by it. Every message is answered with `re: ` and the message: by
/// `Bidi` at once, by `Unary` and `Client` with the last of them once all have come, by `Server` five times over. A
/// status in trailers is the end.
async fn grpc(request: Request<Incoming>) -> Response<Body> {
    assert_eq!(request.headers()["te"], "trailers");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let (feed, body) = fed();
    tokio::spawn(async move {
        let kind = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let mut incoming = request.into_body();
        let mut last = Bytes::new();
        while let Some(Ok(frame)) = incoming.frame().await {
            // The end of the stream may come as an empty frame.
            if let Some(data) = frame.into_data().ok().filter(|data| !data.is_empty()) {
                last = message(&format!("re: {}", String::from_utf8_lossy(&data[5..])));
                if kind == "Bidi" {
                    let _ = feed.send(Frame::data(last.clone()));
                }
            }
        }
        let times = match kind.as_str() {
            "Bidi" => 0,
            "Server" => 5,
            _ => 1,
        };
        for _ in 0..times {
            let _ = feed.send(Frame::data(last.clone()));
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let _ = feed.send(Frame::trailers(trailers));
    });
    Response::builder().header("content-type", "application/grpc").body(body).expect("a response")
}

/// Calls one method of each kind. `sent` and `answered` are messages.
async fn all_four_kinds(mut connect: impl AsyncFnMut() -> Client) {
    for (kind, sent, answered) in [("Unary", 1, 1), ("Client", 5, 1), ("Server", 1, 5), ("Bidi", 5, 5)] {
        let mut client = connect().await;
        let (feed, body) = fed();
        let request = client
            .request("POST", &format!("/echo.Echo/{kind}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .expect("a request");
        let response = soon("the headers", client.send(request)).await.expect("an answer");
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let mut incoming = response.into_body();
        let mut next = async |n: usize| {
            let frame = soon("a message", incoming.frame()).await.expect("a frame").expect("a frame");
            assert_eq!(frame.into_data().expect("data"), message(&format!("re: m{n}")), "{kind}");
        };
        for n in 0..sent {
            feed.send(Frame::data(message(&format!("m{n}")))).expect("open");
            if kind == "Bidi" {
                // Each answer is here before the next message is sent: nothing is held back in either direction.
                next(n).await;
            }
        }
        drop(feed);
        if kind != "Bidi" {
            for _ in 0..answered {
                next(sent - 1).await;
            }
        }
        let frame = soon("the trailers", incoming.frame()).await.expect("a frame").expect("a frame");
        assert_eq!(frame.into_trailers().expect("trailers")["grpc-status"], "0", "{kind}");
        assert!(soon("the end", incoming.frame()).await.is_none());
    }
}

#[tokio::test]
async fn all_four_kinds_of_grpc_call_pass_unharmed() {
    let upstream = upstream(grpc).await;
    let gateway = gateway(&upstream, ", protocol: http2");
    all_four_kinds(async || Client::h2(gateway.address("web")).await).await;
}

#[tokio::test]
async fn all_four_kinds_of_grpc_call_pass_through_tls_on_both_sides() {
    let certificate = tls::certificate(&["a.example"]);
    let upstream = tls_upstream(tls::server_config(&certificate, false, &["h2"]), grpc).await;
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", tls: {{ mode: terminate, certificates: [ {{ cert: a.pem, key: a.key }} ] }}, http: {{ routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"], tls: {{ ca: ca.pem, sni: a.example }} }} ]",
        upstream.address
    );
    let setup = Setup::new().file("ca.pem", tls::authority().pem());
    let setup = setup.file("a.pem", &certificate.cert).file("a.key", &certificate.key);
    let gateway = setup.config(config).start();
    all_four_kinds(async || {
        let config = tls::client_config(None, &["h2"]);
        Client::tls(gateway.address("web"), "a.example", config).await.expect("it shakes hands")
    })
    .await;
}

#[tokio::test]
async fn a_grpc_answer_without_messages_keeps_its_status() {
    let upstream = upstream(|_: Request<Incoming>| async move {
        Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "5")
            .body(empty())
            .expect("a response")
    })
    .await;
    let gateway = gateway(&upstream, ", protocol: http2");
    let mut client = Client::h2(gateway.address("web")).await;
    let request =
        client.request("POST", "/e.E/C").header("content-type", "application/grpc").body(full(message("x")));
    let answer = client.call(request.expect("a request")).await.expect("an answer");
    assert_eq!(answer.header("grpc-status"), "5");
}

#[tokio::test]
async fn weirs_own_errors_speak_grpc_to_callers_that_do() {
    let nowhere = Upstream::nowhere().await;
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{nowhere}\"], protocol: http2 }} ]"
    );
    let gateway = Setup::new().config(config).start();
    let mut client = Client::h2(gateway.address("web")).await;
    let request =
        client.request("POST", "/e.E/C").header("content-type", "application/grpc").body(full(message("x")));
    let answer = client.call(request.expect("a request")).await.expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.header("grpc-status").as_str()), (200, "14"));
}

#[tokio::test]
async fn malformed_http2_requests_are_refused() {
    let mirror = mirror().await;
    let gateway = gateway(&mirror, "");
    let mut client = Client::h2(gateway.address("web")).await;
    let request =
        client.request("GET", "/").header("host", "other.example").body(empty()).expect("a request");
    let answer = client.call(request).await.expect("an answer");
    assert_eq!(answer.status, 400, "host contradicts :authority");
    assert_eq!((answer.header("server").as_str(), answer.text().as_str()), ("weir", "invalid Host\n"));
    let entry = gateway.wait_for_access("invalid_host");
    assert_eq!(entry["status"], 400);
    let metrics = gateway.admin("GET", "/metrics").await.text();
    assert!(
        metrics.contains("weir_http_refused_total{listener=\"web\",reason=\"invalid_host\"} 1"),
        "{metrics}"
    );
    assert_eq!(client.get("/").await.status, 200, "the connection goes on");
}

#[tokio::test]
async fn a_connection_without_a_stream_is_closed_after_its_idle_timeout_and_a_slow_stream_is_not_cut() {
    let (slow, mut asked) = asking().await;
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ], idle_timeout: 200ms }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        slow.address
    );
    let gateway = Setup::new().config(config).start();
    let closed = async |client: Client| {
        let Client::H2(client) = client else { panic!("HTTP/2") };
        until("the end of the connection", async || client.is_closed().then_some(())).await;
    };
    let mut client = Client::h2(gateway.address("web")).await;
    let busy = tokio::spawn(async move { (client.get("/").await.text(), client) });
    let (_, answer) = soon("the request", asked.recv()).await.expect("it comes");
    // One that begins later and asks for nothing is the clock: when its time is up, so is that of the first.
    closed(Client::h2(gateway.address("web")).await).await;
    answer.send(Response::new(full("slow"))).expect("the upstream waits");
    let (text, client) = busy.await.expect("a client");
    assert_eq!(text, "slow");
    closed(client).await;
}
