//! Budgets over time: what a filter may use by the second, how often it may fail, what it costs others to start it, and
//! what becomes of a version that keeps failing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::Value;
use weir_tests::guests::wat;
use weir_tests::http::{Answer, Client, empty, full, get, mirror};
use weir_tests::upstream::Upstream;
use weir_tests::wait::{PATIENCE, until};
use weir_tests::{Gateway, Setup};

/// One worker, the filter on one listener, and none on another.
fn config(filter: &str, upstream: &Upstream) -> String {
    format!(
        "runtime: {{ workers: 1 }}\n\
         listeners:\n\
         \x20 - {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: faulty {filter} }} ], routes: [ {{ cluster: up }} ] }} }}\n\
         \x20 - {{ name: clean, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] }} }}\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    )
}

/// A module that counts to `headers` when it is shown request headers, and to `start` when it is started. With `trap` it
/// then traps on request headers. `id` makes it another version.
fn counting(start: u64, headers: u64, trap: bool, id: u32) -> Vec<u8> {
    let trap = if trap { "unreachable" } else { "" };
    wat(&format!(
        r#"(module
          (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 64) "counting")
          (func $count (param $n i64)
            (block $done (loop $more
              (br_if $done (i64.eqz (local.get $n)))
              (local.set $n (i64.sub (local.get $n) (i64.const 1)))
              (br $more))))
          (func (export "malloc") (param i32) (result i32) i32.const 1024)
          (func (export "proxy_abi_version_0_2_1"))
          (func (export "proxy_on_context_create") (param i32 i32))
          (func (export "proxy_on_vm_start") (param i32 i32) (result i32)
            (drop (call $log (i32.const 2) (i32.const 64) (i32.const 8)))
            (call $count (i64.const {start}))
            i32.const 1)
          (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $count (i64.const {headers})) {trap}
            i32.const 0)
          (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) i32.const 0)
          (func (export "version") (result i32) i32.const {id}))"#
    ))
}

/// About a millisecond for a module that counts, on a machine of its time.
const MILLISECOND: u64 = 1_500_000;

fn counting_gateway(filter: &str, headers: u64, upstream: &Upstream) -> Gateway {
    let setup = Setup::new().plugin_bytes("faulty", &counting(0, headers, false, 0));
    setup.config(config(filter, upstream)).start()
}

async fn with_fault(gateway: &Gateway, fault: &str) -> Answer {
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("GET", "/").header("x-fault", fault).body(empty()).expect("a request");
    client.call(request).await.expect("an answer")
}

/// What the one filter used of the version that serves.
async fn used(gateway: &Gateway) -> Value {
    let plugin = gateway.plugin("faulty").await;
    let versions = plugin["versions"].as_array().cloned().unwrap_or_default();
    let serving = versions.into_iter().find(|version| version["state"] == "serving");
    serving.map(|version| version["filters"][0].clone()).unwrap_or_default()
}

async fn until_ok(gateway: &Gateway) {
    until("the filter to let requests through", async || {
        (get(gateway.address("web"), "/").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_filter_that_stays_under_its_call_budget_is_throttled_when_it_uses_too_much_of_a_second() {
    let mirror = mirror().await;
    let gateway =
        counting_gateway(", cpu: 2s, cpu_per_second: 20ms, cpu_per_stream: 0s", 10 * MILLISECOND, &mirror);
    let mut client = Client::h1(gateway.address("web")).await;
    assert_eq!(client.get("/").await.status, 200);
    let refused = until("its time to be used up", async || {
        let answer = client.get("/").await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert_eq!(refused.text(), "");
    assert_eq!(gateway.wait_for_access("filter_throttled")["status"], 503);
    assert_eq!(get(gateway.address("clean"), "/").await.status, 200);
    until_ok(&gateway).await;
    assert!(used(&gateway).await["throttled"].as_u64().is_some_and(|count| count > 0));
    assert!(!gateway.logged("a plugin failed"), "it is throttled, not killed");
    gateway.wait_for_log("a filter has used up its CPU time");
    let metrics = gateway.admin("GET", "/metrics").await.text();
    assert!(metrics.contains("weir_plugin_refused_total{plugin=\"faulty\",version=\"sha256:"), "{metrics}");
}

#[tokio::test]
async fn a_throttled_filter_that_may_fail_is_skipped() {
    let mirror = mirror().await;
    let filter = ", cpu: 2s, cpu_per_second: 1ms, cpu_per_stream: 0s, on_failure: open";
    let gateway = counting_gateway(filter, 10 * MILLISECOND, &mirror);
    until("it to be skipped", async || {
        assert_eq!(get(gateway.address("web"), "/").await.status, 200);
        (used(&gateway).await["throttled"] != 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_uses_more_of_a_filter_than_a_stream_may_is_ended_and_the_others_go_on() {
    let mirror = mirror().await;
    let gateway =
        counting_gateway(", cpu: 2s, cpu_per_second: 0s, cpu_per_stream: 1ms", 10 * MILLISECOND, &mirror);
    let mut client = Client::h1(gateway.address("web")).await;
    // Its first call was one too much; there must be none after it.
    let request = client.request("POST", "/").body(full("a body")).expect("a request");
    assert_eq!(client.call(request).await.expect("an answer").status, 503);
    gateway.wait_for_access("filter_throttled");
    for _ in 0..3 {
        assert_eq!(
            get(gateway.address("web"), "/").await.status,
            200,
            "one call is all that this stream needs"
        );
    }
    assert!(!gateway.logged("a plugin failed"));
}

#[tokio::test]
async fn a_stream_that_uses_too_much_of_a_filter_that_may_fail_goes_on_without_it() {
    let mirror = mirror().await;
    let filter = ", cpu: 2s, cpu_per_second: 0s, cpu_per_stream: 1ms, on_failure: open";
    let gateway = counting_gateway(filter, 10 * MILLISECOND, &mirror);
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("POST", "/").body(full("a body")).expect("a request");
    assert_eq!(client.call(request).await.expect("an answer").status, 200);
    assert_eq!(used(&gateway).await["throttled"], 1);
}

#[tokio::test]
async fn overruns_open_the_breaker_and_one_request_that_goes_well_closes_it() {
    let mirror = mirror().await;
    let gateway = Setup::new().plugin("faulty").config(config(", cpu: 12ms", &mirror)).start();
    assert_eq!(with_fault(&gateway, "loop").await.status, 503);
    gateway.wait_for_log("a plugin fails too often and is not called for");
    // The new instance is there at once, and yet it is not called.
    gateway.wait_for_log("a plugin that failed is back");
    until("a refusal", async || {
        assert_eq!(with_fault(&gateway, "none").await.status, 503, "as long as it is open");
        gateway.wait_for_access("filter_");
        (used(&gateway).await["breakers_open"] == 1).then_some(())
    })
    .await;
    gateway.wait_for_access("filter_breaker_open");
    assert_eq!(get(gateway.address("clean"), "/").await.status, 200);
    until("the breaker to let one try", async || {
        (with_fault(&gateway, "none").await.status == 200).then_some(())
    })
    .await;
    gateway.wait_for_log("a plugin that failed too often is called again");
    assert_eq!(used(&gateway).await["breakers_open"], 0);
    assert_eq!(with_fault(&gateway, "none").await.status, 200);
}

#[tokio::test]
async fn a_timer_that_loops_opens_the_breaker_and_is_left_alone_while_that_is_open() {
    let mirror = mirror().await;
    let setup = Setup::new().plugin_bytes("faulty", &wat(LOOPS_IN_ITS_TIMER));
    let gateway = setup.config(config(", cpu: 12ms", &mirror)).start();
    gateway.wait_for_log_count("a plugin fails too often and is not called for", 2);
    // An instance was there in between, and its timer went off every millisecond.
    assert_eq!(used(&gateway).await["faults"]["cpu"], 2);
    let metrics = gateway.admin("GET", "/metrics").await.text();
    let skipped = metrics.lines().find(|line| line.contains("reason=\"breaker_open\""));
    let skipped = skipped.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    assert!(skipped.is_some_and(|count: u64| count >= 100), "{skipped:?}");
    assert_eq!(get(gateway.address("clean"), "/").await.status, 200);
}

const LOOPS_IN_ITS_TIMER: &str = r#"
    (module
      (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "malloc") (param i32) (result i32) i32.const 8)
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $tick (i32.const 1))) i32.const 1)
      (func (export "proxy_on_tick") (param i32) (loop br 0)))
"#;

#[tokio::test]
async fn a_plugin_that_fails_again_and_again_is_built_anew_after_ever_longer_waits() {
    let mirror = mirror().await;
    let gateway = Setup::new().plugin("faulty").config(config("", &mirror)).start();
    for back in 1..=4 {
        until("the plugin to fail", async || {
            with_fault(&gateway, "trap").await;
            gateway.logged(&format!("failures={back}")).then_some(())
        })
        .await;
        gateway.wait_for_log_count("a plugin that failed is back", back);
    }
    let waits: Vec<u64> = (1..=4)
        .map(|failures| {
            let line = gateway.wait_for_log(&format!("failures={failures}"));
            let wait = line.split("wait_ms=").nth(1).and_then(|rest| rest.split(' ').next());
            wait.and_then(|wait| wait.parse().ok()).unwrap_or_else(|| panic!("no wait in {line}"))
        })
        .collect();
    assert_eq!(waits[0], 0);
    assert!(waits.is_sorted() && waits[3] >= 300, "{waits:?}");
    let metrics = gateway.admin("GET", "/metrics").await.text();
    let rebuilt = metrics
        .lines()
        .find(|line| line.starts_with("weir_plugin_rebuilds_total") && line.contains("result=\"started\""));
    assert!(rebuilt.is_some_and(|line| line.ends_with(" 4")), "{rebuilt:?}");
}

/// Threads that use all processors, until they are dropped, or their time is up.
struct Load(Arc<AtomicBool>);

impl Load {
    fn new() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let begun = Instant::now();
        for _ in 0..2 * std::thread::available_parallelism().map_or(2, usize::from) {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) && begun.elapsed() < PATIENCE {
                    std::hint::spin_loop();
                }
            });
        }
        Self(over)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How often the kernel has put the worker aside for others.
fn put_aside(gateway: &Gateway) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).expect("the process is there");
    let read = |task: &std::path::Path, file| std::fs::read_to_string(task.join(file)).unwrap_or_default();
    let worker = tasks
        .map(|task| task.expect("a task").path())
        .find(|task| read(task, "comm").trim() == "weir-worker-0")
        .expect("a thread of that name");
    let status = read(&worker, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).expect("the kernel counts")
}

#[tokio::test]
async fn a_busy_machine_ends_no_innocent_filter() {
    let mirror = mirror().await;
    // A quarter of what a call may use, since a busy host makes a virtual machine twice as slow; what is put aside within it is
    // away for longer than all of that.
    let quota = ", cpu_per_second: 0s, long_calls_per_second: 0s";
    let gateway = counting_gateway(quota, MILLISECOND / 2, &mirror);
    let mut client = Client::h1(gateway.address("web")).await;
    let before = put_aside(&gateway);
    let load = Load::new();
    let mut calls = 0;
    until("the worker to be put aside often, and many calls", async || {
        for _ in 0..20 {
            assert_eq!(client.get("/").await.status, 200);
            calls += 1;
        }
        (calls >= 300 && put_aside(&gateway) >= before + 20).then_some(())
    })
    .await;
    drop(load);
    let faults = used(&gateway).await["faults"].as_object().cloned().expect("faults by kind");
    assert!(faults.values().all(|count| count == 0), "{faults:?}");
}

/// How many requests on the listener without a filter are answered until a line is in the log.
async fn answered_until(gateway: &Gateway, line: &str) -> usize {
    let mut client = Client::h1(gateway.address("clean")).await;
    let mut answered = 0;
    until(line, async || {
        assert_eq!(client.get("/").await.status, 200);
        answered += 1;
        gateway.logged(line).then_some(())
    })
    .await;
    answered
}

#[tokio::test]
async fn a_start_that_takes_long_holds_up_no_worker() {
    let mirror = mirror().await;
    let slow = |id| counting(1_000 * MILLISECOND, 0, true, id);
    let setup = Setup::new().plugin_bytes("faulty", &slow(0));
    let gateway = setup.config(config(", start_cpu: 60s", &mirror)).start();
    gateway.swap_plugin("faulty", &slow(1));
    gateway.wait_for_log_count("counting plugin=", 2);
    let answered = answered_until(&gateway, "a new version serves").await;
    assert!(answered >= 5, "{answered} requests while a version was tried");
    assert_eq!(with_fault(&gateway, "none").await.status, 503);
    gateway.wait_for_log_count("counting plugin=", 3);
    let answered = answered_until(&gateway, "a plugin that failed is back").await;
    assert!(answered >= 5, "{answered} requests while an instance was built anew");
}

#[tokio::test]
async fn a_version_that_keeps_failing_is_rolled_back_and_a_file_that_changes_again_is_tried_again() {
    let mirror = mirror().await;
    let good = |id| counting(0, 0, false, id);
    let bad = |id| counting(0, 0, true, id);
    let setup = Setup::new().plugin_bytes("faulty", &good(0));
    let gateway = setup.config(config("", &mirror)).start();
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    for (round, version) in [(1, 1), (2, 2)] {
        gateway.swap_plugin("faulty", &bad(version));
        gateway.wait_for_log_count("a new version serves", round);
        until_ok(&gateway).await;
        gateway.wait_for_log_count("a new version is rolled back: it failed 3 times", round);
        let plugin = gateway.plugin("faulty").await;
        let versions = plugin["versions"].as_array().expect("a list");
        assert_eq!(versions[0]["state"], "serving", "{plugin:#}");
        assert_eq!(versions[0]["digest"], weir::plugin::digest::Digest::of(&good(0)).to_string());
        assert_eq!(versions[1]["state"], "rejected");
        assert!(versions[1]["reason"].as_str().is_some_and(|reason| reason.contains("was rolled back")));
        assert!(plugin["notice"].as_str().is_some_and(|notice| notice.contains("the version before")));
    }
    let metrics = gateway.admin("GET", "/metrics").await.text();
    assert!(metrics.contains("weir_plugin_reloads_total{result=\"rolled_back\"} 2"), "{metrics}");
    gateway.swap_plugin("faulty", &good(3));
    gateway.wait_for_log_count("a new version serves", 3);
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    assert!(gateway.plugin("faulty").await["notice"].is_null());
}

#[tokio::test]
async fn what_each_version_used_is_told_and_the_sums_outlive_it() {
    let mirror = mirror().await;
    let setup = Setup::new().plugin_bytes("faulty", &counting(0, MILLISECOND, false, 0));
    let gateway = setup.config(config("", &mirror)).start();
    for _ in 0..3 {
        get(gateway.address("web"), "/").await;
    }
    let first = used(&gateway).await;
    assert_eq!(
        (&first["listener"], &first["filter"], &first["instances"]),
        (&"web".into(), &"faulty".into(), &1.into())
    );
    assert!(first["calls"].as_u64().is_some_and(|calls| calls >= 6), "{first}");
    assert!(first["cpu_seconds"].as_f64().is_some_and(|cpu| cpu > 0.0005), "{first}");
    assert_eq!((&first["memory_bytes"], &first["memory_peak_bytes"]), (&65536.into(), &65536.into()));
    let before = gateway.plugin("faulty").await["calls"].as_u64().expect("a number");
    gateway.swap_plugin("faulty", &counting(0, 0, false, 1));
    gateway.wait_for_log("a new version serves");
    let metrics = until("the old version to be gone", async || {
        let metrics = gateway.admin("GET", "/metrics").await.text();
        metrics.contains("weir_plugin_calls_total{plugin=\"faulty\",version=\"gone\",filter=\"faulty\",listener=\"web\"}").then_some(metrics)
    })
    .await;
    let counted = metrics.lines().filter(|line| line.starts_with("weir_plugin_calls_total")).count();
    assert_eq!(counted, 2, "the version that serves, and those that are gone");
    let after = gateway.plugin("faulty").await;
    assert!(after["calls"].as_u64().is_some_and(|calls| calls > before), "{after:#}");
    assert_eq!(after["instances"], 1);
}
