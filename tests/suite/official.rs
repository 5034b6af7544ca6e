//! Filters built with the official `proxy-wasm` crate run as they are.

use http::{HeaderName, HeaderValue, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use weir_tests::guests::{patched, wasm};
use weir_tests::http::{Client, empty, full, get, mirror, upstream, with_trailers};
use weir_tests::upstream::Upstream;
use weir_tests::wait::soon;
use weir_tests::{Gateway, Setup};

use crate::plugins::filtered;

#[tokio::test]
async fn the_headers_example_logs_headers_and_answers_by_itself() {
    let mirror = mirror().await;
    let gateway = filtered(&["official-headers"], "{ plugin: official-headers }", &mirror);
    let hello = get(gateway.address("web"), "/hello").await;
    assert_eq!(
        (hello.text().as_str(), hello.header("powered-by").as_str()),
        ("Hello, World!\n", "proxy-wasm")
    );
    assert!(get(gateway.address("web"), "/other").await.text().starts_with("GET /other "));
    gateway.wait_for_log("-> :path: /hello");
    gateway.wait_for_log("<- :status: 200");
    gateway.wait_for_log("completed.");
}

#[tokio::test]
async fn a_module_that_says_0_2_0_runs_too() {
    let mirror = mirror().await;
    let older = patched("official-headers", "proxy_abi_version_0_2_1", "proxy_abi_version_0_2_0");
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: older }} ], routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        mirror.address
    );
    let gateway = Setup::new().plugin_bytes("older", &older).config(config).start();
    assert_eq!(get(gateway.address("web"), "/hello").await.text(), "Hello, World!\n");
}

#[tokio::test]
async fn the_body_example_redacts_a_secret_however_it_comes() {
    let upstream = upstream(|request: Request<Incoming>| async move {
        let text = if request.uri().path() == "/secret" { "a secret that leaks" } else { "nothing to hide" };
        http::Response::new(full(text))
    })
    .await;
    let gateway = filtered(&["official-body"], "{ plugin: official-body }", &upstream);
    let redacted = get(gateway.address("web"), "/secret").await;
    assert_eq!(redacted.text(), "Original message body (19 bytes) redacted.\n");
    assert_eq!(get(gateway.address("web"), "/").await.text(), "nothing to hide");
}

#[tokio::test]
async fn the_auth_example_asks_a_cluster_before_it_decides() {
    let mirror = mirror().await;
    // Answers with an even byte for those who are let in.
    let authority = upstream(|request: Request<Incoming>| async move {
        assert_eq!(request.headers()["host"], "auth.internal");
        let body = match request.uri().path() {
            "/good" => full("@yes"),
            "/slow" => {
                std::future::pending::<()>().await;
                empty()
            }
            _ => full("Ano"),
        };
        http::Response::new(body)
    })
    .await;
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: official-auth, grants: {{ clusters: [authority] }} }} ], \
           routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }}, {{ name: authority, endpoints: [\"{}\"] }} ]",
        mirror.address, authority.address
    );
    let gateway = Setup::new().plugin("official-auth").config(config).start();
    let mut client = Client::h1(gateway.address("web")).await;
    for _ in 0..20 {
        let good = client.get("/good").await;
        assert_eq!(good.header("powered-by"), "proxy-wasm");
        assert!(good.text().contains("x-granted-by: 200 of "), "{}", good.text());
        let bad = client.get("/bad").await;
        assert_eq!((bad.status.as_u16(), bad.text().as_str()), (403, "Access forbidden.\n"));
    }
    let slow = client.get("/slow").await;
    assert_eq!(slow.status, 403, "a call that ends without an answer is told as one");
}

#[tokio::test]
async fn a_call_to_a_cluster_that_there_is_not_is_refused_with_a_status() {
    let mirror = mirror().await;
    let gateway = filtered(&["official-auth"], "{ plugin: official-auth }", &mirror);
    let answer = get(gateway.address("web"), "/").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (500, "the call was refused: BadArgument"));
}

#[tokio::test]
async fn the_config_example_gets_its_configuration_as_it_stands() {
    let mirror = mirror().await;
    for (config, expected) in [("\"just text\"", "just text"), ("{ a: 1, b: [x] }", r#"{"a":1,"b":["x"]}"#)] {
        let filter = format!("{{ plugin: official-config, config: {config} }}");
        let gateway = filtered(&["official-config"], &filter, &mirror);
        assert_eq!(get(gateway.address("web"), "/").await.header("custom-header"), expected);
    }
}

#[tokio::test]
async fn the_tcp_routing_example_chooses_the_cluster_of_a_connection() {
    let greeter = Upstream::new(|mut socket| async move {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, b"routed").await;
    })
    .await;
    let config = format!(
        "listeners: [ {{ name: l, address: \"127.0.0.1:0\", filters: [ {{ plugin: official-tcp-routing, config: \"greeter\" }} ] }} ]\n\
         clusters: [ {{ name: greeter, endpoints: [\"{}\"] }} ]",
        greeter.address
    );
    let gateway = Setup::new().plugin("official-tcp-routing").config(config).start();
    let mut socket = TcpStream::connect(gateway.address("l")).await.expect("it listens");
    let mut text = String::new();
    soon("the greeting", socket.read_to_string(&mut text)).await.expect("text");
    assert_eq!(text, "routed");
}

/// A gateway with one of the examples, an upstream, and the cluster `other` that examples call, both over HTTP/2: there
/// trailers need not be asked for.
fn calling(plugin: &str, upstream: &Upstream, called: &Upstream) -> Gateway {
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: {plugin}, grants: {{ clusters: [other] }} }} ], \
           routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"], protocol: http2 }}, \
           {{ name: other, endpoints: [\"{}\"], protocol: http2 }} ]",
        upstream.address, called.address
    );
    Setup::new().plugin(plugin).config(config).start()
}

#[tokio::test]
async fn the_call_example_holds_the_request_and_the_response_and_gets_body_and_trailers() {
    let mirror = mirror().await;
    let authority = upstream(|request: Request<Incoming>| async move {
        let (parts, body) = request.into_parts();
        let collected = body.collect().await.expect("a body");
        let end = collected.trailers().and_then(|trailers| trailers.get("x-end")).cloned();
        let end = end.unwrap_or_else(|| HeaderValue::from_static("no trailer"));
        let asked = String::from_utf8_lossy(&collected.to_bytes()).into_owned();
        let answer = format!("{} {} {asked:?}", parts.method, parts.uri.path());
        http::Response::new(with_trailers(
            answer,
            [(HeaderName::from_static("x-end"), end)].into_iter().collect(),
        ))
    })
    .await;
    let gateway = calling("official-call", &mirror, &authority);
    let mut client = Client::h1(gateway.address("web")).await;
    for _ in 0..10 {
        let answer = client.get("/path").await;
        let of_request = "x-answer: 200 POST /request \"/path\" of the question as counted\n";
        assert!(answer.text().contains(of_request), "{}", answer.text());
        assert_eq!(answer.header("x-answer"), "200 POST /response \"200\" of the question as counted");
    }
}

#[tokio::test]
async fn the_trailers_example_changes_trailers_in_both_directions() {
    let upstream = upstream(|request: Request<Incoming>| async move {
        let collected = request.into_body().collect().await.expect("a body");
        let mut got: Vec<String> = Vec::new();
        for (name, value) in collected.trailers().cloned().unwrap_or_default() {
            got.extend(name.map(|name| format!("{name}: {}", value.to_str().expect("text"))));
        }
        got.sort();
        let trailers = [("x-internal", "1"), ("x-other", "2")]
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        http::Response::new(with_trailers(got.join(", "), trailers.into_iter().collect()))
    })
    .await;
    let gateway = calling("official-trailers", &upstream, &upstream);
    let mut client = Client::h2(gateway.address("web")).await;
    for _ in 0..2 {
        let trailers = [("x-sum", "42"), ("x-secret", "s")]
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let body = with_trailers("body", trailers.into_iter().collect());
        let request = client.request("POST", "/").body(body).expect("a request");
        let answer = client.call(request).await.expect("an answer");
        assert_eq!(answer.text(), "x-checked: by the official SDK, x-sum: 43");
        let got = answer.trailers.expect("trailers");
        assert_eq!((got.len(), &got["x-all"]), (1, &HeaderValue::from_static("new")));
    }
    gateway.wait_for_log_count("2 request trailers, of which the sum is 42", 2);
    gateway.wait_for_log_count("2 response trailers: x-internal x-other", 2);
}

#[tokio::test]
async fn the_metrics_example_counts_and_its_metrics_are_exposed() {
    let mirror = mirror().await;
    let gateway = filtered(&["official-metrics"], "{ plugin: official-metrics }", &mirror);
    let mut client = Client::h1(gateway.address("web")).await;
    for (requests, size) in [("2", "7"), ("4", "500")] {
        let request = client.request("GET", "/").header("x-size", size).body(empty()).expect("a request");
        let answer = client.call(request).await.expect("an answer");
        assert_eq!(answer.header("x-requests"), requests);
        let left: u32 = answer.header("x-last-size").parse().expect("a number");
        assert_eq!((left + 1).to_string(), size);
    }
    gateway.wait_for_log("[Ok(()), Err(BadArgument), Ok(()), Ok(()), Ok(())]");
    let metrics = gateway.admin("GET", "/metrics").await.text();
    let labels = "{plugin=\"official-metrics\",filter=\"official-metrics\"}";
    for line in [
        format!("weir_plugin_custom_official_requests{labels} 4"),
        format!("weir_plugin_custom_official_last_size{labels} 499"),
        format!("weir_plugin_custom_official_sizes_count{labels} 2"),
        format!("weir_plugin_custom_official_sizes_sum{labels} 507"),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in:\n{metrics}");
    }
}

#[tokio::test]
async fn the_tick_example_holds_each_request_until_the_next_tick() {
    let mirror = mirror().await;
    let gateway = filtered(&["official-tick"], "{ plugin: official-tick }", &mirror);
    let mut client = Client::h1(gateway.address("web")).await;
    let mut last = 0;
    for _ in 0..5 {
        let text = soon("a tick", client.get("/")).await.text();
        let tick = text.lines().find_map(|line| line.strip_prefix("x-tick: "));
        let tick: u32 =
            tick.and_then(|tick| tick.parse().ok()).unwrap_or_else(|| panic!("no tick in {text}"));
        assert!(tick > last, "{tick} after {last}");
        last = tick;
    }
}

/// A gRPC server that sends back each message, `re: ` before it, and ends with this status.
async fn greeter(status: &'static str) -> Upstream {
    upstream(move |request: Request<Incoming>| async move {
        assert_eq!(request.headers()["content-type"], "application/grpc");
        assert_eq!(request.headers()["x-asks"], "official");
        let asked = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let (mut asked, mut answer) = (&asked[..], Vec::new());
        while let Some((head, rest)) = asked.split_first_chunk::<5>() {
            let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            answer.extend_from_slice(&[0]);
            answer.extend_from_slice(&(len as u32 + 4).to_be_bytes());
            answer.extend_from_slice(b"re: ");
            answer.extend_from_slice(&rest[..len]);
            asked = &rest[len..];
        }
        let trailers = [("grpc-status", status), ("x-end", "of it")]
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let body = with_trailers(answer, trailers.into_iter().collect());
        http::Response::builder().header("content-type", "application/grpc").body(body).expect("a response")
    })
    .await
}

/// What the gRPC example heard when a path was asked for: the upstream is told.
async fn heard(gateway: &Gateway, path: &str) -> String {
    let text = soon("an answer", get(gateway.address("web"), path)).await.text();
    let heard = text.lines().find_map(|line| line.strip_prefix("x-heard: "));
    heard.unwrap_or_else(|| panic!("nothing heard: {text}")).to_owned()
}

#[tokio::test]
async fn the_grpc_example_holds_requests_for_a_call_and_for_a_stream() {
    let (mirror, greeter) = (mirror().await, greeter("0").await);
    let gateway = calling("official-grpc", &mirror, &greeter);
    for _ in 0..5 {
        assert_eq!(heard(&gateway, "/unary").await, "call 0 re: ann");
        assert_eq!(
            heard(&gateway, "/stream").await,
            "begins application/grpc; message re: ann; message re: bob; message re: cat; trailing of it; closed 0"
        );
    }
    assert_eq!(heard(&gateway, "/cancel").await, "nothing");
    assert_eq!(heard(&gateway, "/nobody").await, "refused: ParseFailure");
    assert!(get(gateway.address("web"), "/else").await.text().starts_with("GET /else "));
}

#[tokio::test]
async fn the_grpc_example_is_told_the_status_of_what_failed() {
    let (mirror, greeter) = (mirror().await, greeter("5").await);
    let gateway = calling("official-grpc", &mirror, &greeter);
    assert_eq!(heard(&gateway, "/unary").await, "call 5 without a message");
    assert!(heard(&gateway, "/stream").await.ends_with("closed 5"));
}

#[tokio::test]
async fn the_queue_example_hands_items_from_one_filter_to_another_in_the_same_vm_and_in_another() {
    let mirror = mirror().await;
    for (of_consumer, of_producer, config) in
        [("same", "same", "produce"), ("same", "same", "produce same"), ("store", "shop", "produce store")]
    {
        let filters = format!(
            "{{ plugin: official-queue, name: consumer, vm_id: {of_consumer}, config: consume }}, \
             {{ plugin: official-queue, name: producer, vm_id: {of_producer}, config: {config}, grants: {{ shared_data: [store] }} }}"
        );
        let gateway = filtered(&["official-queue"], &filters, &mirror);
        for path in ["/one", "/two", "/three"] {
            let text = get(gateway.address("web"), path).await.text();
            assert!(text.contains("x-put: Ok(())\n"), "{text}");
            let line = gateway.wait_for_log(&format!("taken: {path} "));
            assert!(line.contains("filter=\"consumer\""), "{line}");
        }
    }
}

#[tokio::test]
async fn the_queue_example_finds_no_queue_of_a_vm_that_there_is_not() {
    let mirror = mirror().await;
    let filter = "{ plugin: official-queue, config: produce nobody, grants: { shared_data: [nobody] } }";
    let gateway = filtered(&["official-queue"], filter, &mirror);
    let text = get(gateway.address("web"), "/").await.text();
    assert!(text.contains("x-put: no such queue\n"), "{text}");
}

#[tokio::test]
async fn the_done_example_ends_only_after_its_last_call_is_answered() {
    let (mirror, audit) = (mirror().await, weir_tests::http::mirror().await);
    let config = format!(
        "runtime: {{ workers: 1 }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: official-done, grants: {{ clusters: [other] }} }} ], \
           routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }}, {{ name: other, endpoints: [\"{}\"] }} ]",
        mirror.address, audit.address
    );
    let gateway = Setup::new().plugin("official-done").config(config).start();
    for _ in 0..3 {
        assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    }
    // The same code with a section more is another version.
    let mut other = wasm("official-done");
    other.extend_from_slice(&[0, 5, 4, b'm', b'a', b'r', b'k']);
    gateway.swap_plugin("official-done", &other);
    let order = [
        "asked to end after 3 requests: Ok(())",
        "done: the audit answered 200",
        "deleted after 3 requests ",
    ];
    order.iter().for_each(|line| drop(gateway.wait_for_log(line)));
    let log = gateway.log();
    let asked = log.find(order[0]).expect("it was waited for");
    let places: Vec<usize> = order
        .iter()
        .map(|line| log[asked..].find(line).unwrap_or_else(|| panic!("{line} comes after: {log}")))
        .collect();
    assert!(places.is_sorted(), "{places:?}");
}
