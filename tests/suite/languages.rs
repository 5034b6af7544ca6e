//! Filters in C, C++, Go and AssemblyScript run as they are. They are written against the raw ABI, in
//! `tests/guests/foreign`.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_tests::http::{Answer, Client, empty, full, mirror, upstream};
use weir_tests::languages::{Language, has_wasmexport};
use weir_tests::upstream::Upstream;
use weir_tests::wait::soon;
use weir_tests::{Gateway, Setup};

use crate::check::inspect;

/// A gateway with the guest of a language as its filter; `None` when the language has no compiler here.
fn gateway(language: Language, upstream: &Upstream, other: &Upstream) -> Option<Gateway> {
    start(
        language,
        &format!(
            "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ], filters: [ \
               {{ plugin: foreign, config: \"as it stands\", grants: {{ clusters: [other] }} }} ] }} }} ]\n\
             clusters: [ {{ name: up, endpoints: [\"{}\"] }}, {{ name: other, endpoints: [\"{}\"] }} ]",
            upstream.address, other.address
        ),
    )
}

/// A gateway with the guest of a language as a plugin.
fn start(language: Language, config: &str) -> Option<Gateway> {
    let guest = language.guest()?;
    // One at a time: the first compiles the guest, and those after it find the code in the cache.
    static STARTING: Mutex<()> = Mutex::new(());
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let plugins = format!("plugins: {{ directory: plugins, cache: \"{}\" }}\n", language.cache().display());
    Some(Setup::new().plugin_bytes("foreign", guest).config(plugins + config).start())
}

async fn visit(gateway: &Gateway, path: &str, visitor: &str) -> Answer {
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("GET", path).header("x-visitor", visitor).body(empty()).expect("a request");
    client.call(request).await.expect("an answer")
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Everything that each of the guests does.
async fn assert_runs(language: Language) {
    let mirror = mirror().await;
    let Some(gateway) = gateway(language, &mirror, &mirror) else { return };
    let name = language.name();
    let before = seconds();
    let answers = [visit(&gateway, "/", "ann").await, visit(&gateway, "/", "bob").await];
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), answer.header("x-language").as_str()), (200, name));
        assert_eq!(answer.header("x-config"), "as it stands");
        let time: u64 = answer.header("x-time").parse().expect("seconds since 1970");
        assert!((before..=seconds()).contains(&time), "{time}");
        assert_eq!(answer.header("x-random").len(), 16, "eight bytes");
    }
    assert_ne!(answers[0].header("x-random"), answers[1].header("x-random"));
    for visitor in ["ann", "bob"] {
        let logged = gateway.wait_for_log(&format!("{name}: a request of {visitor}"));
        let printed = gateway.wait_for_log(&format!("{name} prints: {visitor}"));
        for line in [logged, printed] {
            assert!(line.contains("INFO") && line.contains("plugin=\"foreign\""), "{line}");
        }
    }
    let held = soon("the timer", visit(&gateway, "/held", "cat")).await;
    assert!(held.text().starts_with("GET /held "), "{}", held.text());
}

/// The guest asks a cluster before it lets a request pass.
async fn assert_asks(language: Language) {
    let mirror = mirror().await;
    let authority = upstream(|request: http::Request<hyper::body::Incoming>| async move {
        assert_eq!(
            (request.uri().path(), &request.headers()["host"]),
            ("/may-it-pass", &"authority".parse().expect("a value"))
        );
        http::Response::new(full("it may"))
    })
    .await;
    let Some(gateway) = gateway(language, &mirror, &authority) else { return };
    for _ in 0..10 {
        let answer = visit(&gateway, "/ask", "dan").await;
        assert!(answer.text().contains("x-answer: it may\n"), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_filter_in_c_runs_with_its_clock_its_random_numbers_and_its_stdout() {
    assert_runs(Language::C).await;
}

#[tokio::test]
async fn a_filter_in_cpp_runs_with_its_clock_its_random_numbers_and_its_stdout() {
    assert_runs(Language::Cpp).await;
}

#[tokio::test]
async fn a_filter_in_go_runs_with_its_clock_its_random_numbers_and_its_stdout() {
    assert_runs(Language::Go).await;
}

#[tokio::test]
async fn a_filter_in_assemblyscript_runs_with_its_clock_its_random_numbers_and_its_stdout() {
    assert_runs(Language::AssemblyScript).await;
}

#[tokio::test]
async fn a_filter_in_c_holds_a_request_until_a_cluster_has_answered() {
    assert_asks(Language::C).await;
}

#[tokio::test]
async fn a_filter_in_go_holds_a_request_until_a_cluster_has_answered() {
    assert_asks(Language::Go).await;
}

#[tokio::test]
async fn a_filter_in_c_that_sleeps_for_an_hour_goes_on_at_once() {
    let mirror = mirror().await;
    let Some(gateway) = gateway(Language::C, &mirror, &mirror) else { return };
    assert_eq!(soon("an answer", visit(&gateway, "/sleep", "eve")).await.status, 200);
    gateway.wait_for_log("C: sleeping left nothing");
}

#[tokio::test]
async fn a_filter_in_go_that_sleeps_loses_its_own_stream_and_holds_up_no_worker() {
    let mirror = mirror().await;
    let Some(gateway) = gateway(Language::Go, &mirror, &mirror) else { return };
    assert_eq!(soon("an answer", visit(&gateway, "/sleep", "eve")).await.status, 503);
    gateway.wait_for_log("it used up its CPU time");
    let next = weir_tests::wait::until("a new instance", async || {
        Some(visit(&gateway, "/", "eve").await).filter(|answer| answer.status == 200)
    });
    assert_eq!(next.await.header("x-language"), "Go");
}

#[tokio::test]
async fn an_assertion_that_fails_in_assemblyscript_is_logged_with_its_place_and_the_next_request_succeeds() {
    let mirror = mirror().await;
    let Some(gateway) = gateway(Language::AssemblyScript, &mirror, &mirror) else { return };
    assert_eq!(visit(&gateway, "/abort", "eve").await.status, 503);
    gateway.wait_for_log("a path that it cannot bear at filter.ts:");
    gateway.wait_for_log("the plugin exited with status 255");
    let next = weir_tests::wait::until("a new instance", async || {
        Some(visit(&gateway, "/", "eve").await).filter(|answer| answer.status == 200)
    });
    assert_eq!(next.await.header("x-language"), "AssemblyScript");
}

#[tokio::test]
async fn a_filter_in_c_reads_and_changes_the_bytes_of_a_connection_in_both_directions() {
    let echo = Upstream::echo().await;
    let config = format!(
        "listeners: [ {{ name: l, address: \"127.0.0.1:0\", tcp: {{ cluster: echo }}, \
           filters: [ {{ plugin: foreign, config: \"\" }} ] }} ]\n\
         clusters: [ {{ name: echo, endpoints: [\"{}\"] }} ]",
        echo.address
    );
    let Some(gateway) = start(Language::C, &config) else { return };
    let mut socket = TcpStream::connect(gateway.address("l")).await.expect("it listens");
    socket.write_all(b"hello").await.expect("sent");
    let mut answer = [0; 8];
    soon("the echo", socket.read_exact(&mut answer)).await.expect("bytes");
    assert_eq!(std::str::from_utf8(&answer), Ok("C: HELLO"));
    drop(socket);
    gateway.wait_for_log("C: a connection begins");
    gateway.wait_for_log("C: a connection ends");
}

#[test]
fn inspect_tells_a_filter_in_go_by_its_compiler_and_lists_each_function_once() {
    let Some(guest) = Language::Go.guest() else { return };
    let (good, json, _) = inspect(guest);
    assert!(good, "{json:#}");
    let producers = json["producers"].as_array().expect("a list");
    assert!(producers.iter().any(|by| by.as_str().is_some_and(|by| by.starts_with("Go go1."))), "{json:#}");
    let functions = json["wasi_functions"].as_array().expect("a list");
    assert_eq!(functions.iter().filter(|name| *name == "fd_write").count(), 1, "{json:#}");
    assert!(functions.iter().any(|name| name == "poll_oneoff"), "{json:#}");
}

#[test]
fn only_a_go_from_1_24_on_is_taken_for_one_that_builds_filters() {
    for (version, builds) in [
        ("go version go1.24 linux/amd64", true),
        ("go version go1.27.3 linux/amd64", true),
        ("go version devel go1.25-a1b2c3 linux/arm64", true),
        ("go version go1.23.9 linux/amd64", false),
        ("go version go1.19.8 linux/amd64", false),
        ("none", false),
    ] {
        assert_eq!(has_wasmexport(version), builds, "{version}");
    }
}
