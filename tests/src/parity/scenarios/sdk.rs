//! Filters of our SDK that await something: what Envoy runs is the same file.

use crate::parity::upstreams::Answer;
use crate::parity::{Scenario, Send, get, post};

pub fn scenarios() -> Vec<Scenario> {
    let awaits = |name, modes: &[&'static str]| {
        let scenario = Scenario::new(name, "").with(|filter| filter.guest = "awaits");
        modes.iter().fold(scenario, |scenario, mode| scenario.send(get("/x").header("x-await", mode)))
    };
    let reads = |name, config, modes: &[&'static str]| {
        let scenario = Scenario::new(name, config).with(|filter| filter.guest = "reads");
        let send = |mode| post("/x", &["one", "two", "three"]).header("x-read", mode);
        modes.iter().fold(scenario, |scenario, mode| scenario.send(send(mode)))
    };
    let with_trailers = |mode| {
        Send { method: "POST", path: "/x", body: vec!["body".to_owned()], ..Send::default() }
            .header("x-read", mode)
            .trailer("x-sum", "42")
    };
    vec![
        awaits("sdk-awaits-calls", &["call", "one-after-the-other", "response", "deny", "shared", ""])
            .other(Answer::body(&["answered"]))
            .until("over:  0"),
        awaits("sdk-awaits-the-clock", &["sleep", "timeout", "no-answer"])
            .other(Answer::silence())
            .until("over: no-answer"),
        awaits("sdk-awaits-grpc", &["grpc"]).other(Answer::grpc("0")).until("over: grpc"),
        awaits("sdk-awaits-nobody", &["unknown-cluster"]).until("over: unknown-cluster"),
        reads(
            "sdk-reads-whole",
            "",
            &["all", "all-then-ask", "ask-then-all", "all-then-deny", "response", ""],
        )
        .other(Answer::body(&["answered"])),
        reads("sdk-reads-pieces", "", &["pieces", "pieces-asking", "response-pieces"])
            .answer(Answer::body(&["four", "five"]))
            .other(Answer::body(&["answered"])),
        reads("sdk-reads-too-much", r#"{"limit": 5}"#, &["all", "response"]),
        reads(
            "sdk-reads-with-headers",
            r#"{"hold_headers": true}"#,
            &["all-then-headers", "all-then-ask", "pieces"],
        )
        .with(|filter| filter.headers_stop_iteration = true)
        .other(Answer::body(&["answered"])),
        ["all", "all-then-ask", "pieces", "pieces-asking"]
            .into_iter()
            .fold(reads("sdk-reads-before-trailers", "", &[]), |scenario, mode| {
                scenario.send(with_trailers(mode))
            })
            .other(Answer::body(&["answered"])),
    ]
}
