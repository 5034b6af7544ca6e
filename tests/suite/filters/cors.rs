//! `cors`.

use http::Response;
use weir_tests::http::{full, mirror, upstream};

use super::{ask, plain};

const CONFIG: &str = r#"{ allow_origins: ["https://app.example"], allow_methods: [PUT], allow_headers: [x-a], allow_credentials: true,
    expose_headers: [x-b], max_age: 1m }"#;

/// The lines of an answer's head about origins, in order of their names.
fn said(answer: &str) -> Vec<&str> {
    let (head, _) = answer.split_once("\r\n\r\n").expect("a head");
    let mut lines: Vec<&str> =
        head.lines().filter(|line| line.starts_with("access-control-") || line.starts_with("vary")).collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn a_preflight_is_answered_and_the_upstream_does_not_see_it() {
    let mirror = mirror().await;
    let gateway = plain("cors", CONFIG, &mirror);
    let wanted = "access-control-request-method: PUT\r\naccess-control-request-headers: x-a\r\n";
    let answer = ask(&gateway, "OPTIONS", "/", &format!("origin: https://app.example\r\n{wanted}")).await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let told = [
        "access-control-allow-credentials: true",
        "access-control-allow-headers: x-a",
        "access-control-allow-methods: PUT",
        "access-control-allow-origin: https://app.example",
        "access-control-max-age: 60",
        "vary: origin",
    ];
    assert_eq!(said(&answer), told);
    for other in ["https://evil.example", "null", "https://app.example.evil.example"] {
        let answer = ask(&gateway, "OPTIONS", "/", &format!("origin: {other}\r\n{wanted}")).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert_eq!(said(&answer), ["vary: origin"]);
    }
    gateway.wait_for_access("origin not allowed");
    // What asks for no method is no preflight.
    assert!(ask(&gateway, "OPTIONS", "/x", "origin: https://app.example\r\n").await.contains("OPTIONS /x "));
}

#[tokio::test]
async fn responses_say_who_may_read_them_whatever_the_upstream_says() {
    let upstream = upstream(|_| async {
        let response = Response::builder()
            .header("access-control-allow-origin", "*")
            .header("Access-Control-Allow-Credentials", "true")
            .header("vary", "accept-encoding")
            .header("vary", "Accept");
        response.body(full("hello")).expect("a response")
    });
    let upstream = upstream.await;
    let gateway = plain("cors", CONFIG, &upstream);
    let own = [
        "access-control-allow-credentials: true",
        "access-control-allow-origin: https://app.example",
        "access-control-expose-headers: x-b",
    ];
    let vary = ["vary: Accept", "vary: accept-encoding", "vary: origin"];
    let answer = ask(&gateway, "GET", "/", "Origin: https://app.example\r\n").await;
    assert_eq!(said(&answer), [own, vary].concat());
    for other in [
        "",
        "origin: https://evil.example\r\n",
        "origin: null\r\n",
        "origin: https://app.example\r\norigin: https://app.example\r\n",
    ] {
        assert_eq!(said(&ask(&gateway, "GET", "/", other).await), vary, "{other}");
    }
}

#[tokio::test]
async fn all_origins_with_credentials_are_refused_when_the_gateway_starts() {
    let mirror = mirror().await;
    let config = super::plain_config("cors", r#"{ allow_origins: ["*"], allow_credentials: true }"#, &mirror);
    let gateway = weir_tests::Setup::new().plugin("cors").config(config).launch();
    gateway.wait_for_log("would let every page of the web act as its visitor");
    assert!(!gateway.wait_for_exit().success());
}
