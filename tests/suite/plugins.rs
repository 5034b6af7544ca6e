//! What a plugin can do, function by function, through the real host. The guests are built with our SDK.

use http::Request;
use weir_tests::http::{Answer, Client, empty, full, get, mirror, raw, upstream};
use weir_tests::upstream::Upstream;
use weir_tests::wait::until;
use weir_tests::{Gateway, Setup};

/// A gateway that sends everything through these filters to one upstream.
pub fn filtered(plugins: &[&str], filters: &str, upstream: &Upstream) -> Gateway {
    filtered_with(plugins, filters, upstream, "", "")
}

/// The same, with further fields of the HTTP section and of the route.
pub fn filtered_with(
    plugins: &[&str],
    filters: &str,
    upstream: &Upstream,
    http: &str,
    route: &str,
) -> Gateway {
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {filters} ], \
           routes: [ {{ cluster: up, name: main {route} }} ] {http} }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    );
    plugins.iter().fold(Setup::new().config(config), |setup, plugin| setup.plugin(plugin)).start()
}

async fn post(gateway: &Gateway, path: &str, headers: &[(&str, &str)], body: &'static str) -> Answer {
    let mut client = Client::h1(gateway.address("web")).await;
    let mut request = client.request("POST", path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.call(request.body(full(body)).expect("a request")).await.expect("an answer")
}

const TWO: &str = "{ plugin: phases, name: one, config: { name: one } }, { plugin: phases, name: two, config: { name: two } }";

#[tokio::test]
async fn every_phase_is_seen_in_order_for_requests_and_in_reverse_for_responses() {
    let mirror = mirror().await;
    let gateway = filtered(&["phases"], TWO, &mirror);
    let answer = post(&gateway, "/x", &[], "hello").await;
    assert!(answer.text().contains("x-seen-by: one\nx-seen-by: two\n"), "{}", answer.text());
    let passed: Vec<_> = answer.headers.get_all("x-passed").iter().collect();
    assert_eq!(passed, ["two", "one"]);
    assert_eq!(
        answer.header("x-notes-one"),
        "request_headers false; request_body 5 true; response_headers 200"
    );
    let line = gateway.wait_for_log(
        "one: /x 200: request_headers false; request_body 5 true; response_headers 200; response_body",
    );
    assert!(line.contains("plugin=\"phases\" filter=\"one\""), "{line}");
}

#[tokio::test]
async fn a_message_without_body_says_so_with_its_headers_and_nothing_more_is_called() {
    let upstream =
        upstream(|_| async { http::Response::builder().status(204).body(empty()).expect("a response") })
            .await;
    let gateway = filtered(&["phases"], TWO, &upstream);
    get(gateway.address("web"), "/x").await;
    gateway.wait_for_log("one: /x 204: request_headers true; response_headers 204 ");
}

#[tokio::test]
async fn a_body_that_filters_only_look_at_keeps_its_length_whatever_they_do_to_the_headers() {
    let mirror = mirror().await;
    let gateway = filtered(&["phases"], TWO, &mirror);
    let mut client = Client::h1(gateway.address("web")).await;
    let (feed, body) = weir_tests::http::fed();
    let request =
        client.request("POST", "/").header("content-length", "200000").body(body).expect("a request");
    let sending = tokio::spawn(async move { client.call(request).await });
    for _ in 0..2 {
        feed.send(hyper::body::Frame::data(vec![b'x'; 100_000].into())).expect("open");
    }
    drop(feed);
    let text = sending.await.expect("a task").expect("an answer").text();
    assert!(text.contains("x-seen-by: one") && text.contains("content-length: 200000\n"), "{}", &text[..300]);
    assert!(!text.contains("transfer-encoding"), "{}", &text[..300]);
}

#[tokio::test]
async fn trailers_pass_the_filters_which_may_add_to_them() {
    let echo = Upstream::new(|mut socket| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut request = Vec::new();
        while !request.ends_with(b"x-sum: 42\r\n\r\n") {
            request.push(socket.read_u8().await.expect("a request with its trailer"));
        }
        let answer =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum-Back: 42\r\n\r\n";
        socket.write_all(answer.as_bytes()).await.expect("sent");
    })
    .await;
    let gateway = filtered(&["phases"], TWO, &echo);
    let request = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 42\r\n\r\n";
    let answer = raw(gateway.address("web"), request).await;
    assert!(
        answer.ends_with("0\r\nx-sum-back: 42\r\nx-trailer-by: two\r\nx-trailer-by: one\r\n\r\n"),
        "{answer}"
    );
    gateway.wait_for_log(
        "two: /x 200: request_headers false; request_body 2 false; request_trailers 1; response_headers 200; \
         response_body 2 false; response_trailers 1",
    );
}

#[tokio::test]
async fn a_body_is_held_until_it_is_whole_replaced_and_sent_on_with_its_new_length() {
    let mirror = mirror().await;
    let gateway = filtered(&["bodies"], "{ plugin: bodies, config: { hold_request: true } }", &mirror);
    let text = post(&gateway, "/", &[], "hello").await.text();
    assert!(text.ends_with("\n\nHELLO (5 bytes)") && text.contains("content-length: 15\n"), "{text}");
    // In chunks: the filter sees all that has gathered, once.
    let chunks = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                  3\r\nabc\r\n3\r\ndef\r\n3\r\nghi\r\n0\r\n\r\n";
    let answer = raw(gateway.address("web"), chunks).await;
    assert!(answer.ends_with("\n\nABCDEFGHI (9 bytes)"), "{answer}");
}

#[tokio::test]
async fn a_response_is_held_and_changed_with_its_new_length_or_without_any() {
    let upstream = upstream(|_| async { http::Response::new(full("hello world")) }).await;
    let hold = filtered(&["bodies"], "{ plugin: bodies, config: { hold_response: true } }", &upstream);
    let answer = get(hold.address("web"), "/").await;
    assert_eq!((answer.text().as_str(), answer.header("content-length").as_str()), ("[hello world]", "13"));
    let prepend = filtered(&["bodies"], "{ plugin: bodies, config: { prepend: \">> \" } }", &upstream);
    assert_eq!(get(prepend.address("web"), "/").await.text(), ">> hello world");
}

#[tokio::test]
async fn a_response_that_is_changed_piece_by_piece_is_sent_without_a_length() {
    let upstream = Upstream::new(|mut socket| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = socket.read(&mut [0; 1024]).await;
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nfour").await.expect("sent");
        // The second piece comes once the first one is on its way.
        tokio::task::yield_now().await;
        socket.write_all(b"more").await.expect("sent");
    })
    .await;
    let gateway = filtered(&["bodies"], "{ plugin: bodies, config: { prepend: \">\" } }", &upstream);
    let answer = get(gateway.address("web"), "/").await;
    assert!(matches!(answer.text().as_str(), ">four>more" | ">fourmore"), "{}", answer.text());
}

#[tokio::test]
async fn more_than_a_filter_may_hold_is_413_and_the_filter_hears_no_more_of_it() {
    let mirror = mirror().await;
    let gateway = filtered_with(
        &["bodies"],
        "{ plugin: bodies, config: { hold_request: true } }",
        &mirror,
        ", max_buffered_body: 1KiB",
        "",
    );
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("POST", "/big").body(full(vec![b'x'; 200_000])).expect("a request");
    let answer = client.call(request).await.expect("an answer");
    assert_eq!(answer.status, 413);
    assert_eq!(gateway.wait_for_access("/big")["reason"], "request_body_over_buffer_limit");
}

#[tokio::test]
async fn a_filter_replies_in_any_phase_and_once_the_response_has_begun_the_stream_is_cut() {
    let mirror = mirror().await;
    let gateway = filtered(&["replies"], "{ plugin: replies }", &mirror);
    for phase in ["request_headers", "request_body", "response_headers"] {
        let answer = post(&gateway, &format!("/{phase}"), &[("x-reply-in", phase)], "hello").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-phase")), (418, phase.to_owned()));
        assert_eq!(answer.text(), format!("from {phase}"));
        let entry = gateway.wait_for_access(&format!("\"path\":\"/{phase}\""));
        assert_eq!(
            (entry["filter"].as_str(), entry["reason"].as_str()),
            (Some("replies"), Some(&*format!("in_{phase}")))
        );
    }
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("POST", "/late").header("x-reply-in", "response_body").body(full("hello"));
    let late = client.call(request.expect("a request")).await;
    // The head may have waited for the body; then there is an answer, and else the connection is cut.
    assert!(late.as_ref().is_err() || late.as_ref().is_ok_and(|answer| answer.status == 418), "{late:?}");
}

#[tokio::test]
async fn a_reply_passes_the_response_filters_of_those_that_saw_the_request() {
    let mirror = mirror().await;
    let filters = "{ plugin: phases, name: before, config: { name: before } }, { plugin: replies }, \
                   { plugin: phases, name: behind, config: { name: behind } }";
    let gateway = filtered(&["phases", "replies"], filters, &mirror);
    let answer = post(&gateway, "/", &[("x-reply-in", "request_headers")], "hello").await;
    assert_eq!(answer.header("x-passed"), "before");
    assert_eq!(answer.header("x-passed-replies"), "yes");
}

#[tokio::test]
async fn an_error_of_a_filter_is_logged_and_the_request_answered_with_500() {
    let mirror = mirror().await;
    let gateway = filtered(&["replies"], "{ plugin: replies }", &mirror);
    assert_eq!(post(&gateway, "/", &[("x-reply-in", "error")], "").await.status, 500);
    gateway.wait_for_log("on purpose");
}

#[tokio::test]
async fn a_filter_that_pauses_and_never_resumes_is_ended_by_its_timeout() {
    let mirror = mirror().await;
    let gateway = filtered(&["replies"], "{ plugin: replies, pause_timeout: 100ms }", &mirror);
    assert_eq!(post(&gateway, "/paused", &[("x-reply-in", "never")], "").await.status, 504);
    assert_eq!(gateway.wait_for_access("/paused")["reason"], "pause_timeout");
}

#[tokio::test]
async fn shared_data_timers_metrics_and_properties_work() {
    let mirror = mirror().await;
    let gateway = filtered(&["sharing"], "{ plugin: sharing }", &mirror);
    let ask = async || {
        let mut client = Client::h1(gateway.address("web")).await;
        let request =
            client.request("GET", "/a/b?c").header("user-agent", "test").body(empty()).expect("a request");
        client.call(request).await.expect("an answer")
    };
    let first = ask().await;
    for (name, value) in [
        ("x-count", "1"),
        ("x-note", "kept"),
        ("x-method", "GET"),
        ("x-url-path", "/a/b"),
        ("x-agent", "test"),
        ("x-route", "main"),
        ("x-cluster", "up"),
        ("x-upstream", &mirror.address.to_string()),
        ("x-plugin", "sharing"),
        ("x-code", "200"),
        ("x-unknown", ""),
    ] {
        assert_eq!(first.header(name), value, "{name}");
    }
    assert!(first.header("x-source").starts_with("127.0.0.1:"), "{first:?}");
    assert!(first.header("x-source").ends_with(&format!(":{}", first.header("x-port"))), "{first:?}");
    // Both workers count in one place, and the timer ticks without any request.
    for n in 2..10 {
        assert_eq!(ask().await.header("x-count"), n.to_string());
    }
    until("the timer to tick a few times", async || {
        ask().await.header("x-ticks").parse::<u32>().ok().filter(|ticks| *ticks > 3)
    })
    .await;
}

#[tokio::test]
async fn a_route_switches_a_filter_off_or_configures_it_differently() {
    let mirror = mirror().await;
    let config = format!(
        "listeners:\n  - name: web\n    address: 127.0.0.1:0\n    http:\n\
         \x20     filters: [ {{ plugin: phases, name: one, config: {{ name: usual }} }}, {{ plugin: phases, name: two, config: {{ name: two }} }} ]\n\
         \x20     routes:\n\
         \x20       - {{ match: {{ path: /off }}, cluster: up, filters: {{ one: off }} }}\n\
         \x20       - {{ match: {{ path: /quoted }}, cluster: up, filters: {{ one: \"off\", two: 'off' }} }}\n\
         \x20       - {{ match: {{ path: /other }}, cluster: up, filters: {{ one: {{ config: {{ name: unusual }} }} }} }}\n\
         \x20       - {{ cluster: up }}\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        mirror.address
    );
    let gateway = Setup::new().plugin("phases").config(config).start();
    let seen = async |path: &str| {
        let text = get(gateway.address("web"), path).await.text();
        let lines = text.lines().filter_map(|line| line.strip_prefix("x-seen-by: "));
        lines.map(str::to_owned).collect::<Vec<_>>().join(",")
    };
    assert_eq!(seen("/off").await, "two");
    assert_eq!(seen("/quoted").await, "");
    assert_eq!(seen("/other").await, "unusual,two");
    assert_eq!(seen("/").await, "usual,two");
}

#[tokio::test]
async fn a_filter_that_edits_what_the_route_was_chosen_by_has_it_chosen_again() {
    let (a, b) = (mirror().await, upstream(|_| async { http::Response::new(full("canary")) }).await);
    let config = format!(
        "listeners:\n  - name: web\n    address: 127.0.0.1:0\n    http:\n\
         \x20     filters: [ {{ plugin: header-rewrite, config: {{ request: {{ rename: {{ x-want: x-canary }} }} }} }} ]\n\
         \x20     routes:\n\
         \x20       - {{ name: canary, match: {{ headers: {{ x-canary: \"1\" }} }}, cluster: b }}\n\
         \x20       - {{ name: usual, cluster: a }}\n\
         clusters: [ {{ name: a, endpoints: [\"{}\"] }}, {{ name: b, endpoints: [\"{}\"] }} ]",
        a.address, b.address
    );
    let gateway = Setup::new().plugin("header-rewrite").config(config).start();
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("GET", "/moved").header("x-want", "1").body(empty()).expect("a request");
    assert_eq!(client.call(request).await.expect("an answer").text(), "canary");
    assert_eq!(gateway.wait_for_access("/moved")["route"], "canary");
    assert_ne!(client.get("/").await.text(), "canary");
}

#[tokio::test]
async fn filters_run_on_http2_streams_as_they_do_on_http1() {
    let mirror = mirror().await;
    let gateway = filtered(
        &["phases", "bodies"],
        &format!("{TWO}, {{ plugin: bodies, config: {{ hold_request: true }} }}"),
        &mirror,
    );
    let mut client = Client::h2(gateway.address("web")).await;
    let request: Request<_> = client.request("POST", "/").body(full("hello")).expect("a request");
    let answer = client.call(request).await.expect("an answer");
    assert!(answer.text().ends_with("\n\nHELLO (5 bytes)"), "{}", answer.text());
    assert_eq!(answer.headers.get_all("x-passed").iter().collect::<Vec<_>>(), ["two", "one"]);
}
