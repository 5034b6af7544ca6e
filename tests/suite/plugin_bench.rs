//! `weir plugin bench`: what callbacks cost.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;
use tempfile::TempDir;
use weir_tests::guests::{filters, weir};

/// Measures cases on the standard filter that rewrites headers.
fn bench(cases: &str, more: &[&str]) -> (String, bool) {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("cases.yaml");
    fs::write(&file, cases).expect("it is written");
    let mut command = Command::new(weir());
    command.args(["plugin", "bench"]).arg(file).arg("--plugin").arg(filters().join("header-rewrite.wasm"));
    let out = command.args(["--runs", "100"]).args(more).env("NO_COLOR", "1").output().expect("weir runs");
    (String::from_utf8(out.stdout).expect("text"), out.status.success())
}

fn against(path: &Path) -> [&str; 2] {
    ["--against", path.to_str().expect("text")]
}

#[test]
fn every_callback_has_its_calls_times_host_calls_and_bytes() {
    let case = |name: &str, length: usize| {
        let value = "v".repeat(length);
        format!(
            "  - name: {name}\n    config: {{ request: {{ set: {{ x-a: {value} }} }} }}\n    request: {{}}\n"
        )
    };
    let cases = format!("cases:\n{}{}", case("short", 10), case("long", 1_010));
    let (said, good) = bench(&cases, &["--json"]);
    assert!(good, "{said}");
    let measured: Json = serde_json::from_str(&said).expect("JSON");
    let of = |at: usize, what: &str| {
        measured[at]["callbacks"]["proxy_on_request_headers"][what].as_f64().expect(what)
    };
    for at in [0, 1] {
        assert_eq!(of(at, "calls"), 1.0, "one for each run: {said}");
        assert!(of(at, "median_ns") > 0.0 && of(at, "p99_ns") >= of(at, "median_ns"), "{said}");
        assert!(of(at, "host_calls") >= 1.0, "{said}");
    }
    assert_eq!(of(1, "bytes") - of(0, "bytes"), 1_000.0, "{said}");
    assert_eq!(of(1, "host_calls"), of(0, "host_calls"), "{said}");
    assert_eq!(measured[0]["case"], "short");
    assert!(measured[0]["against"].is_null());
}

#[test]
fn another_plugin_stands_beside_with_its_change() {
    let cases = "cases:\n  - name: one\n    config: { request: { set: { x-a: b } } }\n    request: {}\n";
    let other = filters().join("header-rewrite.wasm");
    let (said, good) = bench(cases, &against(&other));
    assert!(good, "{said}");
    let head = said.lines().nth(1).expect("a head");
    assert_eq!(
        head.split_whitespace().collect::<Vec<_>>().join(" "),
        "callback calls ns p99 host calls bytes against change"
    );
    let line = said.lines().find(|line| line.contains("proxy_on_request_headers")).expect("its line");
    assert!(line.ends_with(" %") && line.split_whitespace().count() == 9, "{line}");
    assert!(said.lines().last().expect("lines").trim_start().starts_with("all "), "{said}");
}

#[test]
fn a_plugin_that_does_not_start_and_a_name_that_no_case_has_are_told() {
    let cases = "cases:\n  - name: one\n    config: 7\n    request: {}\n";
    for more in [&["--only", "two"][..], &[]] {
        let (said, good) = bench(cases, more);
        assert!(!good && said.is_empty(), "{said}");
    }
}

#[test]
fn a_filter_is_measured_with_an_instance_for_each_stream_and_with_calls_that_give_way_too() {
    let case = "cases:\n  - name: one\n    config: { request: { set: { x-a: b } } }\n    request: {}\n";
    let of_file = format!("filter: {{ isolation: stream }}\n{case}");
    let costs = |cases: &str, more: &[&str]| {
        let (said, good) = bench(cases, &[more, &["--json"]].concat());
        assert!(good, "{said}");
        let measured: Json = serde_json::from_str(&said).expect("JSON");
        let of = |callback: &str, what: &str| measured[0]["callbacks"][callback][what].clone();
        assert!(of("proxy_on_request_headers", "median_ns").as_f64() > Some(0.0), "{said}");
        ["proxy_on_context_create", "proxy_on_request_headers", "proxy_on_response_headers"]
            .map(|callback| ["calls", "host_calls", "bytes"].map(|what| of(callback, what)))
    };
    let plain = costs(case, &[]);
    assert_eq!(plain[1][0], 1.0);
    assert_eq!(costs(case, &["--isolation", "stream"]), plain);
    assert_eq!(costs(&of_file, &[]), plain);
    assert_eq!(costs(&of_file, &["--isolation", "worker"]), plain);
    assert_eq!(costs(case, &["--scheduling", "preemptible"]), plain);
    let (_, good) = bench(case, &["--scheduling", "later"]);
    assert!(!good);
}
