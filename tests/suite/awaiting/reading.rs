//! Bodies that are awaited, as a whole and piece by piece.

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::BodyExt;
use weir_tests::http::{Client, empty, fed, full, upstream, with_trailers};
use weir_tests::wait::soon;

use super::{Bench, feed};

/// What the mirror got of the body.
fn body(text: &str) -> &str {
    text.split_once("\n\n").map_or_else(|| panic!("no body in {text}"), |(_, body)| body)
}

#[tokio::test]
async fn a_body_is_awaited_whole_changed_and_asked_about() {
    let bench = Bench::new("reads", "").await;
    for (mode, got) in [
        ("all", "ONETWO (whole)"),
        ("all-then-ask", "[onetwo]"),
        ("ask-then-all", "onetwo (behind)"),
        ("", "onetwo"),
    ] {
        let (feeds, sent) = fed();
        feed(&feeds, "one");
        feed(&feeds, "two");
        drop(feeds);
        let answer = bench.post(("x-read", mode), sent).await;
        assert_eq!(body(&answer.text()), got, "{mode}");
        assert_eq!(answer.header("x-mode"), mode);
        assert_eq!(answer.text().contains("x-first: [first]"), mode == "ask-then-all", "{}", answer.text());
    }
}

#[tokio::test]
async fn a_body_without_bytes_is_whole_at_once() {
    let bench = Bench::new("reads", "").await;
    let denied = bench.post(("x-read", "all-then-deny"), empty()).await;
    assert_eq!((denied.status.as_u16(), denied.text().as_str()), (403, ""));
    let answer = bench.post(("x-read", "pieces"), empty()).await;
    assert_eq!((answer.status.as_u16(), body(&answer.text())), (200, ""));
}

#[tokio::test]
async fn trailers_end_a_body_that_is_awaited_and_go_on_with_it() {
    let bench = Bench::new("reads", "").await;
    for (mode, got) in [
        ("all", "BODY (whole)"),
        ("all-then-ask", "[body]"),
        ("pieces", "BODY|"),
        ("pieces-asking", "[BODY]|"),
    ] {
        let trailers = [(HeaderName::from_static("x-sum"), HeaderValue::from_static("42"))];
        let answer =
            bench.post(("x-read", mode), with_trailers("body", HeaderMap::from_iter(trailers))).await;
        assert_eq!(body(&answer.text()), format!("{got}\ntrailer x-sum: 42"), "{mode}");
    }
}

#[tokio::test]
async fn a_body_that_was_read_can_be_answered_and_one_over_the_limit_is() {
    let bench = Bench::new("reads", "config: { limit: 8 }").await;
    let denied = bench.post(("x-read", "all-then-deny"), full("text")).await;
    assert_eq!((denied.status.as_u16(), denied.text().as_str()), (403, "text"));
    let refused = bench.post(("x-read", "all"), full("more than eight")).await;
    assert_eq!(refused.status, 413);
    bench.gateway.wait_for_log("a body of more than 8 bytes");
    let late = bench.post(("x-read", "all-then-headers"), full("text")).await;
    assert_eq!(late.status, 500, "the headers have gone on");
}

#[tokio::test]
async fn what_is_over_the_hosts_own_limit_is_answered_though_the_filter_awaits_more() {
    let bench = Bench::new("reads", "config: { limit: 100000000 }").await;
    let refused = bench.post(("x-read", "all"), full(vec![b'x'; 3 << 20])).await;
    assert_eq!((refused.status.as_u16(), refused.header("x-mode").as_str()), (413, "all"));
}

#[tokio::test]
async fn headers_that_wait_for_the_body_can_be_edited_behind_it() {
    let bench =
        Bench::new("reads", "allow_on_headers_stop_iteration: true, config: { hold_headers: true }").await;
    for mode in ["all-then-headers", "pieces", "all", "all-then-ask", "ask-then-all"] {
        let (feeds, sent) = fed();
        feed(&feeds, "one");
        feed(&feeds, "two");
        drop(feeds);
        let answer = bench.post(("x-read", mode), sent).await;
        assert_eq!(answer.status, 200, "{mode}");
        let got = body(&answer.text()).replace('|', "").to_lowercase();
        assert!(got.contains("onetwo"), "{mode}: {got}");
        assert_eq!(answer.text().contains("x-read: 6\n"), mode == "all-then-headers", "{}", answer.text());
    }
}

#[tokio::test]
async fn pieces_are_changed_as_they_come_and_go_on_one_by_one() {
    let echo =
        upstream(|request| async { Response::new(request.into_body().map_err(Into::into).boxed_unsync()) })
            .await;
    let bench = Bench::before(echo, "reads", "").await;
    for (mode, pieces) in [
        ("pieces", ["ONE|", "TWO|"]),
        ("pieces-asking", ["[ONE]|", "[TWO]|"]),
        ("response-pieces", ["ONE|", "TWO|"]),
    ] {
        let mut client = Client::h2(bench.gateway.address("web")).await;
        let (feeds, sent) = fed();
        let request = client.request("POST", "/").header("x-read", mode).body(sent).expect("a request");
        let mut answer = soon("an answer", client.send(request)).await.expect("an answer").into_body();
        // Each piece comes back before the next one is sent: nobody holds it.
        for (piece, got) in ["one", "two"].into_iter().zip(pieces) {
            feed(&feeds, piece);
            let frame = soon("a piece", answer.frame()).await.expect("a piece").expect("a frame");
            assert_eq!(frame.into_data().expect("bytes"), got, "{mode}");
        }
        drop(feeds);
        let rest = soon("the end", answer.collect()).await.expect("an end in order");
        assert!(rest.to_bytes().is_empty(), "{mode}");
    }
}

#[tokio::test]
async fn the_body_of_a_response_is_awaited_whole() {
    let bench = Bench::new("reads", "config: { limit: 100000 }").await;
    let answer = bench.post(("x-read", "response"), full("hello")).await;
    assert!(
        answer.text().starts_with("[POST /path") && answer.text().ends_with("hello]"),
        "{}",
        answer.text()
    );
}
