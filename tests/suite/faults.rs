//! Plugins that go wrong: their own requests feel it, nobody else does, and they are started anew.

use weir_tests::guests::wat;
use weir_tests::http::{Answer, Client, empty, get, mirror};
use weir_tests::wait::until;
use weir_tests::{Gateway, Setup};

/// A gateway with the faulty filter on one listener, and none on another.
fn gateway(filter: &str, upstream: &weir_tests::upstream::Upstream) -> Gateway {
    let config = format!(
        "runtime: {{ workers: 1 }}\n\
         listeners:\n\
         \x20 - {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: faulty {filter} }} ], routes: [ {{ cluster: up }} ] }} }}\n\
         \x20 - {{ name: clean, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] }} }}\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    );
    Setup::new().plugin("faulty").config(config).start()
}

async fn with_fault(gateway: &Gateway, fault: &str) -> Result<Answer, hyper::Error> {
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("GET", "/").header("x-fault", fault).body(empty()).expect("a request");
    client.call(request).await
}

#[tokio::test]
async fn a_fault_is_503_with_an_empty_body_and_the_plugin_is_started_anew() {
    let mirror = mirror().await;
    let gateway = gateway(", memory: 16MiB, cpu: 100ms", &mirror);
    for (number, (fault, kind)) in
        [("trap", "trap"), ("loop", "cpu"), ("memory", "memory"), ("deep", "trap"), ("exit", "exit")]
            .into_iter()
            .enumerate()
    {
        let answer = with_fault(&gateway, fault).await.expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (503, ""), "{fault}");
        gateway.wait_for_log_count("a plugin failed and is started anew", number + 1);
        gateway.wait_for_log(&format!("kind=\"{kind}\""));
        assert_eq!(get(gateway.address("clean"), "/").await.status, 200, "{fault}: the other listener");
        until("the plugin to be back", async || {
            let answer = with_fault(&gateway, "none").await.expect("an answer");
            (answer.status == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_trap_leaves_a_backtrace_with_function_names_in_the_log() {
    let mirror = mirror().await;
    let gateway = gateway("", &mirror);
    with_fault(&gateway, "trap").await.expect("an answer");
    gateway.wait_for_log("on purpose");
    gateway.wait_for_log("proxy_on_request_headers");
}

#[tokio::test]
async fn a_filter_that_may_fail_is_skipped_unless_it_has_changed_the_message() {
    let mirror = mirror().await;
    let gateway = gateway(", on_failure: open", &mirror);
    assert_eq!(with_fault(&gateway, "trap").await.expect("an answer").status, 200);
    // Without the filter, too, until it is back.
    assert_eq!(with_fault(&gateway, "trap").await.expect("an answer").status, 200);
    until("the plugin to be back, and to edit before it fails", async || {
        with_fault(&gateway, "edit-trap").await.err()
    })
    .await;
}

#[tokio::test]
async fn a_fault_in_the_response_is_503_as_long_as_nothing_was_sent() {
    let mirror = mirror().await;
    let gateway = gateway("", &mirror);
    assert_eq!(with_fault(&gateway, "late-trap").await.expect("an answer").status, 503);
}

#[tokio::test]
async fn requests_beside_a_fault_on_the_same_listener_are_answered() {
    let mirror = mirror().await;
    let config = format!(
        "runtime: {{ workers: 1 }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: faulty }} ], routes: [ \
           {{ match: {{ path: /clean }}, cluster: up, filters: {{ faulty: off }} }}, {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        mirror.address
    );
    let gateway = Setup::new().plugin("faulty").config(config).start();
    let mut clean = Client::h1(gateway.address("web")).await;
    for _ in 0..10 {
        let _ = with_fault(&gateway, "loop").await;
        assert_eq!(clean.get("/clean").await.status, 200);
    }
}

#[tokio::test]
async fn a_plugin_that_loops_at_its_start_is_refused_within_its_budget() {
    let gateway = Setup::new()
        .plugin("faulty")
        .config("listeners: [ { name: web, address: \"127.0.0.1:0\", http: { filters: [ { plugin: faulty, start_cpu: 100ms } ], routes: [ { respond: { status: 200 } } ] } } ]")
        .start();
    gateway.swap_plugin("faulty", &wat(LOOPS_AT_START));
    gateway.wait_for_log("it used up its CPU time");
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
}

const LOOPS_AT_START: &str = r#"
    (module
      (memory (export "memory") 1)
      (func (export "malloc") (param i32) (result i32) i32.const 8)
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "_initialize") (loop br 0)))
"#;

/// How often the thread that moves the epoch has gone to sleep.
fn epoch_sleeps(gateway: &Gateway) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).expect("the process is there");
    let read = |task: &std::path::Path, file| std::fs::read_to_string(task.join(file)).unwrap_or_default();
    let task = tasks
        .map(|task| task.expect("a task").path())
        .find(|task| read(task, "comm").trim() == "weir-epoch")
        .expect("a thread of that name");
    let status = read(&task, "status");
    let line =
        status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:")).expect("the kernel counts");
    line.split_whitespace().nth(1).and_then(|count| count.parse().ok()).expect("a number")
}

#[tokio::test]
async fn an_idle_process_lets_the_epoch_rest_and_a_guest_that_never_ends_is_stopped_all_the_same() {
    let mirror = mirror().await;
    let gateway = gateway("", &mirror);
    for _ in 0..3 {
        let mut before = u64::MAX;
        until("the epoch to rest", async || {
            let now = epoch_sleeps(&gateway);
            let rested = now == std::mem::replace(&mut before, now);
            rested.then_some(())
        })
        .await;
        assert_eq!(with_fault(&gateway, "loop").await.expect("an answer").status, 503);
        until("the plugin to be back", async || {
            let answer = with_fault(&gateway, "none").await.expect("an answer");
            (answer.status == 200).then_some(())
        })
        .await;
    }
    assert_eq!(gateway.log().matches("kind=\"cpu\"").count(), 3);
}
