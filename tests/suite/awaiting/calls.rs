//! Calls, timers, and several of them at once.

use weir_tests::http::{Client, empty};
use weir_tests::wait::soon;

use super::Bench;

/// The value of a header in what the mirror tells.
fn told<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[tokio::test]
async fn whatever_a_filter_awaits_the_request_is_held_for_and_goes_on_with() {
    let bench = Bench::new("awaits", "").await;
    let mut client = Client::h1(bench.gateway.address("web")).await;
    for _ in 0..2 {
        for (mode, came) in [
            ("call", "200 /request question"),
            ("two-calls", "200 /one question, 200 /two question"),
            ("many-calls", "200 /1 question, 200 /2 question, 200 /3 question"),
            ("one-after-the-other", "200 /one question, 200 /two question"),
            ("faster", "200 /fast question"),
            ("sleep", "slept"),
            ("timeout", "it took longer than 30ms"),
            ("no-answer", "no answer"),
            ("grpc", "answered: ion"),
            ("shared", "200 /shared question"),
        ] {
            let request = client.request("GET", "/path").header("x-await", mode).body(empty());
            let answer = client.call(request.expect("a request")).await.expect("an answer");
            assert_eq!((answer.status.as_u16(), told(&answer.text(), "x-came")), (200, came), "{mode}");
            assert_eq!(answer.header("x-asked"), came, "what it remembers is there again in the response");
        }
    }
}

#[tokio::test]
async fn a_response_is_held_for_a_call_and_a_call_can_end_in_a_reply_or_an_error() {
    let bench = Bench::new("awaits", "").await;
    let mut client = Client::h1(bench.gateway.address("web")).await;
    let mut ask = async |mode: &str| {
        let request = client.request("GET", "/path").header("x-await", mode).body(empty());
        client.call(request.expect("a request")).await.expect("an answer")
    };
    assert_eq!(ask("response").await.header("x-came"), "200 /response question");
    let denied = ask("deny").await;
    assert_eq!((denied.status.as_u16(), denied.text().as_str()), (403, "denied after a call\n"));
    assert_eq!(ask("unknown-cluster").await.status, 500);
    bench.gateway.wait_for_log("calling cluster `no-such-cluster`: the host answered BadArgument");
    assert_eq!(ask("").await.status, 200);
}

#[tokio::test]
async fn the_streams_of_one_instance_await_side_by_side_and_share_what_one_of_them_fetches() {
    let bench = Bench::new("awaits", "").await;
    let address = bench.gateway.address("web");
    let mut all = tokio::task::JoinSet::new();
    for number in 0..60 {
        let mode = ["shared", "call", "sleep", "two-calls", "grpc", "timeout"][number % 6];
        all.spawn(async move {
            let client = &mut Client::h1(address).await;
            let request = client.request("GET", "/path").header("x-await", mode).body(empty());
            (mode, client.call(request.expect("a request")).await.expect("an answer"))
        });
    }
    while let Some(done) = all.join_next().await {
        let (mode, answer) = done.expect("no panic");
        assert_eq!(answer.status, 200, "{mode}: {}", answer.text());
        if mode == "shared" {
            assert_eq!(told(&answer.text(), "x-came"), "200 /shared question");
        }
    }
}

#[tokio::test]
async fn a_reply_in_the_place_of_a_request_that_is_held_passes_the_filter_and_its_call_is_given_up() {
    let bench = Bench::new("awaits", "pause_timeout: 50ms").await;
    let mut client = Client::h1(bench.gateway.address("web")).await;
    let request = client.request("GET", "/path").header("x-await", "never").body(empty());
    let answer = client.call(request.expect("a request")).await.expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.headers.contains_key("x-asked")), (504, true));
    bench.gateway.wait_for_log("over: never 0");
    assert_eq!(client.get("/path").await.status, 200);
}

#[tokio::test]
async fn a_stream_that_its_client_ends_drops_what_it_awaits() {
    let mut bench = Bench::new("awaits", "").await;
    let address = bench.gateway.address("web");
    let mut client = Client::h2(address).await;
    let request = client.request("GET", "/path").header("x-await", "never").body(empty()).expect("a request");
    let sending = tokio::spawn(async move { drop(client.send(request).await) });
    soon("the call", bench.never.recv()).await.expect("it is made");
    sending.abort();
    bench.gateway.wait_for_log("over: never 0");
    let mut client = Client::h1(address).await;
    assert_eq!(client.get("/path").await.status, 200);
}

#[tokio::test]
async fn a_filter_that_awaits_runs_in_an_instance_of_each_stream_too() {
    let bench = Bench::new("awaits", "isolation: stream").await;
    let mut client = Client::h1(bench.gateway.address("web")).await;
    for mode in ["call", "sleep", "grpc", "shared", "timeout"] {
        let request = client.request("GET", "/path").header("x-await", mode).body(empty());
        let answer = client.call(request.expect("a request")).await.expect("an answer");
        assert_eq!(answer.status, 200, "{mode}: {}", answer.text());
        assert!(!answer.header("x-asked").is_empty(), "{mode}");
    }
}
