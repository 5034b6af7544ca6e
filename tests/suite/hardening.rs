//! What must not pass: requests and answers that would mean two things, claims of strangers, plugins that ask for too
//! much.

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_tests::guests::wat;
use weir_tests::http::{Client, asking, empty, full, get, mirror, raw, upstream};
use weir_tests::upstream::Upstream;
use weir_tests::wait::{soon, until};
use weir_tests::{Gateway, Setup};

/// A gateway that sends everything to one upstream. `top` and `http` are further fields.
fn gateway(upstream: &Upstream, top: &str, http: &str) -> Gateway {
    let config = format!(
        "{top}\nlisteners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up, name: main }} ], {http} }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    );
    Setup::new().config(config).start()
}

/// An upstream that answers with these bytes, whatever it is asked, and keeps the connection open.
async fn saying(answer: &'static str) -> Upstream {
    Upstream::new(move |mut socket: TcpStream| async move {
        let mut seen = Vec::new();
        while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
            if socket.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {
                continue;
            }
            return;
        }
        let _ = socket.write_all(answer.as_bytes()).await;
        let _ = socket.read_buf(&mut seen).await;
    })
    .await
}

#[tokio::test]
async fn a_response_without_body_never_carries_one_whatever_the_plugin_says() {
    // Answers 204, and a body that looks like the next answer.
    let module = wat(r#"(module
        (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 100) "HTTP/1.1 200 OK\0d\0acontent-length: 4\0d\0a\0d\0aevil")
        (data (i32.const 300) "\00\00\00\00")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_context_create") (param i32 i32))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $reply (i32.const 204) (i32.const 0) (i32.const 0) (i32.const 100) (i32.const 43)
                (i32.const 300) (i32.const 4) (i32.const -1)))
            (i32.const 1)))"#);
    let mirror = mirror().await;
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: split }} ], routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        mirror.address
    );
    let gateway = Setup::new().plugin_bytes("split", &module).config(config).start();
    let twice = "GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = raw(gateway.address("web"), twice).await;
    assert_eq!(answer.matches("HTTP/1.1 204 No Content\r\n").count(), 2, "{answer}");
    assert!(!answer.contains("evil") && !answer.contains("content-length"), "{answer}");
    let mut h2 = Client::h2(gateway.address("web")).await;
    for _ in 0..2 {
        let answer = h2.get("/").await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
    }
}

#[tokio::test]
async fn an_answer_to_head_has_no_body_though_a_filter_makes_a_get_of_it() {
    let upstream = upstream(|_| async { Response::new(full("the whole body")) }).await;
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: replies }} ], routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    );
    let gateway = Setup::new().plugin("replies").config(config).start();
    let request = "HEAD / HTTP/1.1\r\nhost: a\r\nx-method: GET\r\n\r\nHEAD / HTTP/1.1\r\nhost: a\r\nx-method: GET\r\nconnection: close\r\n\r\n";
    let answer = raw(gateway.address("web"), request).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answer}");
    assert!(!answer.contains("the whole body"), "{answer}");
}

#[tokio::test]
async fn an_upgrade_to_http2_is_not_passed_on_and_in_http_1_0_none_is() {
    let mirror = mirror().await;
    let gateway = gateway(&mirror, "", "");
    let h2c = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings, close\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n";
    let answer = raw(gateway.address("web"), h2c).await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert!(!answer.contains("upgrade") && !answer.contains("http2-settings"), "{answer}");
    let old = "GET / HTTP/1.0\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let answer = raw(gateway.address("web"), old).await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 200") && !answer.contains("upgrade: websocket"), "{answer}");
}

#[tokio::test]
async fn a_request_that_takes_too_long_to_arrive_is_408() {
    let mirror = mirror().await;
    let gateway = gateway(&mirror, "", "request_timeout: 300ms, request_headers_timeout: 300ms");
    let slow = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf";
    let answer = raw(gateway.address("web"), slow).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    // The first byte of POST and of HTTP/2's preface is the same: what is not clear yet may not wait for long either.
    let answer = raw(gateway.address("web"), "P").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn a_request_that_has_arrived_in_time_may_be_answered_late() {
    let (upstream, mut asked) = asking().await;
    let gateway = gateway(&upstream, "", "request_timeout: 300ms");
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("POST", "/").body(full("all of it")).expect("a request");
    let late = tokio::spawn(async move { client.call(request).await });
    let (request, answer) = soon("the request", asked.recv()).await.expect("it comes");
    request.into_body().collect().await.expect("all of it");
    // One that begins after it and does not arrive is the clock: once that is 408, the first is over its time, too.
    let slow = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf";
    assert!(raw(gateway.address("web"), slow).await.starts_with("HTTP/1.1 408 "));
    answer.send(Response::new(full("late"))).expect("the upstream waits");
    assert_eq!(late.await.expect("a client").expect("an answer").text(), "late");
}

#[tokio::test]
async fn what_is_no_request_is_counted_and_in_the_access_log() {
    let mirror = mirror().await;
    let gateway = gateway(&mirror, "", "");
    let answer = raw(gateway.address("web"), "GET / HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let line = gateway.wait_for_access("\"status\":400");
    assert_eq!((&line["path"], &line["listener"]), (&"-".into(), &"web".into()));
    assert!(line["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{line}");
    let metrics = gateway.admin("GET", "/metrics").await.text();
    assert!(
        metrics.contains("weir_http_requests_total{listener=\"web\",route=\"\",code=\"4xx\"} 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn the_access_log_has_the_request_as_it_came() {
    let mirror = mirror().await;
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ \
           {{ match: {{ path_prefix: /public }}, cluster: up, prefix_rewrite: /internal }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        mirror.address
    );
    let gateway = Setup::new().config(config).start();
    assert!(get(gateway.address("web"), "/public/x?y=1").await.text().starts_with("GET /internal/x?y=1"));
    assert_eq!(gateway.wait_for_access("\"status\":200")["path"], "/public/x?y=1");
}

#[tokio::test]
async fn the_limit_of_a_target_holds_in_http2_too() {
    let mirror = mirror().await;
    let gateway = gateway(&mirror, "", "max_target: 1KiB");
    let mut client = Client::h2(gateway.address("web")).await;
    let answer = client.get(&format!("/{}", "x".repeat(2000))).await;
    assert_eq!(answer.status, 414);
    assert_eq!(answer.header("server"), "weir");
    assert_eq!(client.get("/short").await.status, 200);
}

#[tokio::test]
async fn a_plugin_that_adds_headers_without_end_is_told_no_and_nothing_falls() {
    // Adds headers with ever other names until it is refused, and then asks for the reply that tells of it; again when
    // it is done.
    let module = wat(r#"(module
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 100) "x-aaaaaaaa")
        (data (i32.const 300) "\00\00\00\00")
        (func $next (local $at i32)
            (local.set $at (i32.const 102))
            (loop $carry
                (i32.store8 (local.get $at) (i32.add (i32.load8_u (local.get $at)) (i32.const 1)))
                (if (i32.gt_u (i32.load8_u (local.get $at)) (i32.const 122))
                    (then
                        (i32.store8 (local.get $at) (i32.const 97))
                        (local.set $at (i32.add (local.get $at) (i32.const 1)))
                        (br $carry)))))
        (func $flood (result i32) (local $count i32)
            (loop $more
                (call $next)
                (if (i32.eqz (call $add (i32.const 0) (i32.const 100) (i32.const 10) (i32.const 100) (i32.const 10)))
                    (then
                        (local.set $count (i32.add (local.get $count) (i32.const 1)))
                        (br_if $more (i32.lt_u (local.get $count) (i32.const 100000))))))
            (local.get $count))
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_context_create") (param i32 i32))
        (func (export "proxy_on_done") (param i32) (result i32) (drop (call $flood)) (i32.const 1))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $reply
                (select (i32.const 200) (i32.const 500) (i32.lt_u (call $flood) (i32.const 100000)))
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 300) (i32.const 4) (i32.const -1)))
            (i32.const 1)))"#);
    let mirror = mirror().await;
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: flood, cpu: 5s }} ], routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        mirror.address
    );
    let gateway = Setup::new().plugin_bytes("flood", &module).config(config).start();
    for _ in 0..5 {
        assert_eq!(
            get(gateway.address("web"), "/").await.status,
            StatusCode::OK,
            "it was refused at some point"
        );
    }
    assert!(!gateway.logged("panicked"), "{}", gateway.log());
}

#[tokio::test]
async fn who_wants_to_end_need_not_wait_for_a_version_that_is_being_tried() {
    let module = wat(r#"(module
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "_initialize") (loop $for_ever (br $for_ever))))"#);
    let mirror = mirror().await;
    let config = format!(
        "drain_timeout: 1s\nlisteners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ \
           filters: [ {{ plugin: http-version, start_cpu: 10m }} ], routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        mirror.address
    );
    let good = weir_tests::guests::wasm("http-version");
    let gateway = Setup::new().plugin_bytes("http-version", &good).config(config).start();
    gateway.swap_plugin("http-version", &module);
    gateway.wait_for_log_count("a plugin is compiled", 2);
    assert_eq!(get(gateway.address("web"), "/").await.status, 200, "traffic goes on");
    gateway.signal(rustix::process::Signal::TERM);
    assert_eq!(gateway.wait_for_exit().code(), Some(0), "well before its ten minutes are over");
}

#[tokio::test]
async fn a_version_and_the_configuration_that_it_needs_are_taken_up_in_either_order() {
    let mirror = mirror().await;
    let config = |settings: &str| {
        format!(
            "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: it, config: {settings} }} ], \
               routes: [ {{ respond: {{ status: 200 }} }} ] }} }} ]\n\
             clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
            mirror.address
        )
    };
    // Two plugins in the place of two versions: each refuses the configuration of the other.
    let (one, two) = (
        "{ rules: [ { allow: [\"*\"] } ], decision_header: x-one }",
        "{ response: { set: { x-two: \"2\" } } }",
    );
    let authz = weir_tests::guests::wasm("authz");
    let rewrite = weir_tests::guests::wasm("header-rewrite");
    let gateway = Setup::new().plugin_bytes("it", &authz).config(config(one)).start();
    let shows = async |header: &str| {
        let answer = get(gateway.address("web"), "/").await;
        (!answer.header(header).is_empty()).then_some(())
    };
    assert!(shows("x-one").await.is_some());
    // The version first.
    gateway.swap_plugin("it", &rewrite);
    gateway.wait_for_log("a version is refused");
    assert!(shows("x-one").await.is_some(), "what served goes on");
    gateway.write_config(&config(two));
    until("the second version", async || shows("x-two").await).await;
    // The configuration first.
    gateway.write_config(&config(one));
    gateway.wait_for_log("the configuration is refused");
    assert!(shows("x-two").await.is_some(), "what served goes on");
    gateway.swap_plugin("it", &authz);
    until("the first version again", async || shows("x-one").await).await;
}

#[tokio::test]
async fn a_configuration_that_is_refused_leaves_the_access_log_where_it_was() {
    let mirror = mirror().await;
    let log = |file: &str, cluster: &str| {
        format!(
            "access_log: {file}\nlisteners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ \
               filters: [ {{ plugin: authz, config: {cluster} }} ], routes: [ {{ cluster: up }} ] }} }} ]\n\
             clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
            mirror.address
        )
    };
    let good = "{ rules: [ { allow: [\"*\"] } ] }";
    let gateway = Setup::new().plugin("authz").config(log("one.log", good)).start();
    gateway.write_config(&log("two.log", "{ rulez: [] }"));
    gateway.wait_for_log("the configuration is refused");
    // What is taken up next, a version of the plugin, must not bring the refused log along.
    let mut other = weir_tests::guests::wasm("authz");
    other.extend_from_slice(&[0, 5, 4, b'm', b'a', b'r', b'k']);
    gateway.swap_plugin("authz", &other);
    gateway.wait_for_log("a new version serves");
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    let read = |file: &str| std::fs::read_to_string(gateway.folder().join(file)).unwrap_or_default();
    until("a line in the first log", async || read("one.log").contains("\"status\":200").then_some(())).await;
    assert_eq!(read("two.log"), "");
}

#[tokio::test]
async fn a_page_in_a_browser_does_not_operate_the_gateway() {
    let mirror = mirror().await;
    let gateway = gateway(&mirror, "", "");
    let mut client = Client::h1(gateway.admin_address()).await;
    let request = client.request("POST", "/drain").header("origin", "https://evil.example");
    let request = request.body(empty()).expect("a request");
    assert_eq!(client.call(request).await.expect("an answer").status, 403);
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
}

#[tokio::test]
async fn an_upstream_that_says_more_than_its_answer_is_not_used_again() {
    let upstream =
        saying("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await;
    let gateway = gateway(&upstream, "", "");
    let mut client = Client::h1(gateway.address("web")).await;
    for _ in 0..3 {
        let answer = soon("an answer", client.get("/")).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (204, ""));
    }
}
