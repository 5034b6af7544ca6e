//! Overload: what the process has too little of is given up by degrees, and taken up again.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_tests::http::{Client, asking, empty, get, mirror, read_head};
use weir_tests::upstream::Upstream;
use weir_tests::wait::{soon, until};
use weir_tests::{Gateway, Setup};

fn config(upstream: &Upstream, overload: &str) -> String {
    format!(
        "overload: {{ refresh_interval: 20ms, {overload} }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    )
}

async fn metric(gateway: &Gateway, series: &str) -> u64 {
    let text = gateway.admin("GET", "/metrics").await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in\n{text}"))
}

async fn level(gateway: &Gateway) -> u64 {
    metric(gateway, "weir_overload_level").await
}

const DESCRIPTORS: &str = "weir_overload_pressure_percent{resource=\"descriptors\"}";

/// Opens connections until so much of what may be is in use.
async fn fill(gateway: &Gateway, idle: &mut Vec<TcpStream>, percent: u64) {
    until("the descriptors to be in use", async || {
        if metric(gateway, DESCRIPTORS).await >= percent {
            return Some(());
        }
        idle.push(TcpStream::connect(gateway.address("web")).await.expect("it listens"));
        None
    })
    .await;
}

async fn ask(socket: &mut TcpStream) -> String {
    socket.write_all(b"GET /asked HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    read_head(socket).await
}

#[tokio::test]
async fn with_too_few_descriptors_load_is_shed_by_degrees_and_taken_up_again() {
    let mirror = mirror().await;
    let limits = "max_descriptors: 400, disable_keepalive: 40%, stop_accepting_requests: 55%, \
                  stop_accepting_connections: 70%, reset_streams: 95%";
    let gateway = Setup::new().config(config(&mirror, limits)).start();
    let mut idle = Vec::new();
    let web = gateway.address("web");
    let mut first = TcpStream::connect(web).await.expect("it listens");
    assert!(!ask(&mut first).await.contains("connection: close"), "nothing is given up yet");

    fill(&gateway, &mut idle, 40).await;
    until("keep-alive to be given up", async || (level(&gateway).await == 1).then_some(())).await;
    let mut second = TcpStream::connect(web).await.expect("it listens");
    let answer = ask(&mut second).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    soon("the end", second.read_to_end(&mut Vec::new())).await.expect("in order");

    fill(&gateway, &mut idle, 55).await;
    until("requests to be given up", async || (level(&gateway).await == 2).then_some(())).await;
    let answer = ask(idle.last_mut().expect("an idle connection")).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("connection: close"), "{answer}");
    assert_eq!(gateway.wait_for_access("\"status\":503")["reason"], "overload");
    let mut h2 = Client::h2(web).await;
    assert_eq!(h2.get("/h2").await.status, 503);

    fill(&gateway, &mut idle, 70).await;
    // Those that idle are closed, those that come are reset.
    for mut socket in idle {
        let _ = soon("the end", socket.read_to_end(&mut Vec::new())).await;
    }
    gateway.wait_for_log("to=\"no_connections\"");
    gateway.wait_for_log("to=\"normal\"");
    until("keep-alive again", async || (level(&gateway).await == 0).then_some(())).await;
    let mut last = TcpStream::connect(web).await.expect("it listens");
    let answer = ask(&mut last).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn with_too_little_memory_streams_are_reset_and_connections_refused_until_there_is_enough() {
    let (upstream, mut asked) = asking().await;
    let gateway = Setup::new().config(config(&upstream, "")).start();
    let web = gateway.address("web");
    let calls: Vec<_> = ["h1", "h2"]
        .map(|kind| {
            tokio::spawn(async move {
                let mut client = if kind == "h2" { Client::h2(web).await } else { Client::h1(web).await };
                let request = client.request("GET", &format!("/{kind}")).body(empty()).expect("a request");
                client.call(request).await.map(|answer| answer.status)
            })
        })
        .into();
    let (_one, _two) = (soon("a request", asked.recv()).await, soon("a request", asked.recv()).await);
    // It uses a multiple of that.
    gateway.write_config(&config(&upstream, "max_memory: 1MiB"));
    for call in calls {
        let error = soon("the reset", call).await.expect("no panic").expect_err("no answer");
        assert!(!error.is_user(), "{error}");
    }
    for path in ["/h1", "/h2"] {
        assert_eq!(gateway.wait_for_access(path)["reason"], "overload");
    }
    // The kernel may tell of the reset already when it connects.
    if let Ok(mut refused) = TcpStream::connect(web).await {
        let read = soon("the reset", refused.read(&mut [0; 10])).await;
        assert!(read.is_err() || read.is_ok_and(|read| read == 0));
    }
    assert!(metric(&gateway, "weir_listener_closed_total{listener=\"web\",reason=\"overload\"}").await >= 1);
    gateway.write_config(&config(&upstream, "max_memory: 100GiB"));
    until("enough", async || (level(&gateway).await == 0).then_some(())).await;
    let calling = tokio::spawn(async move { get(web, "/after").await.status });
    let (_, answer) = soon("a request", asked.recv()).await.expect("it comes");
    answer.send(http::Response::new(empty())).expect("the upstream waits");
    assert_eq!(calling.await.expect("no panic"), 200);
}

#[tokio::test]
async fn when_no_worker_comes_round_load_is_shed_and_when_one_is_back_nothing_is_given_up() {
    let filter = json!({ "plugin": "faulty", "cpu": "1s", "on_failure": "closed" });
    let config = format!(
        "runtime: {{ workers: 1 }}\n\
         overload: {{ refresh_interval: 20ms, max_loop_delay: 300ms }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {filter} ], \
           routes: [ {{ respond: {{ status: 200 }} }} ] }} }},\n\
           {{ name: plain, address: \"127.0.0.1:0\", http: {{ routes: [ {{ respond: {{ status: 200 }} }} ] }} }} ]"
    );
    let gateway = Setup::new().plugin("faulty").config(config).start();
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("GET", "/").header("x-fault", "loop").body(empty()).expect("a request");
    // The filter keeps its worker for a second.
    let _ = tokio::time::timeout(Duration::from_secs(30), client.call(request)).await;
    gateway.wait_for_log("resource=\"loop_delay\"");
    gateway.wait_for_log("to=\"normal\"");
    until("an answer", async || (get(gateway.address("plain"), "/").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn nobody_waits_for_a_huge_page_to_be_zeroed() {
    let gateway = Setup::new().config(config(&mirror().await, "")).start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("it runs");
    assert!(status.lines().any(|line| line == "THP_enabled:\t0"), "{status}");
}
