//! The life of plugins: who shares a VM, who hears of queues, and how plugins end.

use rustix::process::Signal;
use serde_json::{Value, json};
use weir_tests::guests::{wasm, wat};
use weir_tests::http::{get, mirror};
use weir_tests::upstream::Upstream;
use weir_tests::wait::until;
use weir_tests::{Gateway, Setup, made_up, puppet, trampoline};

/// A gateway whose listener `web` has these filters, all puppets.
fn gateway(filters: &[Value], workers: usize, mirror: &Upstream) -> Gateway {
    let config = format!(
        "runtime: {{ workers: {workers} }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", \
           http: {{ filters: {}, routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        json!(filters),
        mirror.address
    );
    Setup::new().plugin("puppet").config(config).start()
}

fn puppet(name: &str, vm_id: &str, vm_config: &str, script: &str) -> Value {
    let mut filter = puppet::filter(script);
    filter["name"] = name.into();
    filter["root_id"] = name.into();
    filter["vm_id"] = vm_id.into();
    filter["vm_config"] = vm_config.into();
    filter
}

/// The name of the first stream of a filter: puppets count those of their VM.
fn first_stream(gateway: &Gateway, filter: &str) -> String {
    let of_filter = format!("filter=\"{filter}\"");
    gateway.wait_for_log(&format!("delete [] plugin=\"puppet\" {of_filter}"));
    let log = gateway.log();
    let begins = |line: &&str| line.contains(" context_create ") && line.contains(&of_filter);
    let streams =
        log.lines().filter(begins).filter_map(|line| line.split(' ').find(|word| word.starts_with("stream")));
    streams.map(str::to_owned).next().unwrap_or_else(|| panic!("{filter} has no stream: {log}"))
}

#[tokio::test]
async fn filters_with_the_same_vm_id_configuration_and_content_share_one_vm_with_a_root_context_each() {
    let mirror = mirror().await;
    for (vm_ids, vm_configs, second) in [
        (["same", "same"], ["", ""], "stream2"),
        (["same", "same"], ["", "tick: return 0"], "stream1"),
        (["one", "two"], ["", ""], "stream1"),
        (["", ""], ["", ""], "stream1"),
    ] {
        let filters = [
            puppet("one", vm_ids[0], vm_configs[0], "request_headers: proxy_get_property plugin_root_id"),
            puppet("two", vm_ids[1], vm_configs[1], "request_headers: proxy_get_property plugin_root_id"),
        ];
        let gateway = gateway(&filters, 1, &mirror);
        assert_eq!(get(gateway.address("web"), "/").await.status, 200);
        assert_eq!(first_stream(&gateway, "one"), "stream1");
        assert_eq!(first_stream(&gateway, "two"), second, "{vm_ids:?} {vm_configs:?}");
        // Each hears of its own configuration and its own name.
        assert!(gateway.logged("get_property = 0 \"one\" plugin=\"puppet\" filter=\"one\""));
        assert!(gateway.logged("get_property = 0 \"two\" plugin=\"puppet\" filter=\"two\""));
    }
}

#[tokio::test]
async fn a_fault_in_a_shared_vm_is_followed_by_a_new_instance_with_all_its_filters() {
    let mirror = mirror().await;
    let filters = [puppet("one", "same", "", "request_headers: trap"), puppet("two", "same", "", "")];
    let gateway = gateway(&filters, 1, &mirror);
    for count in 1..=3 {
        // Until the next instance is there, requests are refused too.
        until("a request that the instance fails at", async || {
            assert_eq!(get(gateway.address("web"), "/").await.status, 503);
            let failed = gateway.log().matches("a plugin failed and is started anew").count();
            (failed >= count).then_some(())
        })
        .await;
        // Both filters are there again.
        gateway.wait_for_log_count("root configure", 2 * (count + 1));
    }
}

#[tokio::test]
async fn what_is_put_into_a_queue_is_taken_once_whoever_serves_it_on_whatever_worker() {
    let mirror = mirror().await;
    let take = "queue_ready: proxy_dequeue_shared_queue $queue";
    let mut filters = [
        puppet("taker", "store", "", &format!("configure: proxy_register_shared_queue jobs\n{take}")),
        puppet(
            "giver",
            "shop",
            "",
            "request_headers: proxy_resolve_shared_queue store jobs; proxy_enqueue_shared_queue $last \"a job\"",
        ),
    ];
    filters[1]["grants"] = json!({ "shared_data": ["store"] });
    let gateway = gateway(&filters, 3, &mirror);
    for count in 1..=12 {
        assert_eq!(get(gateway.address("web"), "/").await.status, 200);
        gateway.wait_for_log_count("dequeue_shared_queue = 0 \"a job\"", count);
    }
    assert!(!gateway.logged("dequeue_shared_queue = 7"), "each was told of once: {}", gateway.log());
}

#[tokio::test]
async fn a_plugin_that_holds_its_end_back_goes_on_with_its_timer_until_it_is_done() {
    let mirror = mirror().await;
    let script = "configure: proxy_set_tick_period_milliseconds 20\n\
                  done: return 0\n\
                  tick streaming: proxy_done";
    let gateway = gateway(&[puppet("one", "", "", script)], 1, &mirror);
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    // Before the end is held back, there is nothing to be done.
    gateway.wait_for_log("root done = 1");
    gateway.signal(Signal::TERM);
    gateway.wait_for_log("root done = 0");
    gateway.wait_for_log("root delete");
    assert!(gateway.wait_for_exit().success());
    let log = gateway.log();
    assert_eq!(log.matches("root delete").count(), 1, "{log}");
}

#[tokio::test]
async fn timers_begin_when_a_version_serves_and_end_with_it() {
    let mirror = mirror().await;
    let gateway = gateway(
        &[puppet("one", "", "", "configure: proxy_set_tick_period_milliseconds 20\ntick: log \"a tick\"")],
        1,
        &mirror,
    );
    gateway.wait_for_log_count("root a tick", 3);
    // The same code with a section more is another version.
    let mut other = wasm("puppet");
    other.extend_from_slice(&[0, 5, 4, b'm', b'a', b'r', b'k']);
    gateway.swap_plugin("puppet", &other);
    gateway.wait_for_log("root delete");
    let ticks = || gateway.log().matches("root a tick").count();
    let before = ticks();
    until("the timer of the new version", async || (ticks() > before + 3).then_some(())).await;
    assert_eq!(gateway.log().matches("root delete").count(), 1, "{}", gateway.log());
}

#[test]
fn ids_of_contexts_count_up_and_those_that_are_alive_are_passed_over_when_they_wrap() {
    let limit = std::time::Duration::from_secs(5);
    let mut guest = trampoline::World::new().start();
    let instance = &mut guest.instance;
    let mut create =
        || instance.create_stream(trampoline::ROOTS[0], 0, made_up::http(), limit).expect("a context");
    let (first, second) = (create(), create());
    assert_eq!((first, second), (3, 4), "behind the two root contexts");
    instance.delete_stream(first);
    instance.vm().last_id = u32::MAX - 1;
    let mut create =
        || instance.create_stream(trampoline::ROOTS[0], 0, made_up::http(), limit).expect("a context");
    // 0 is no context, 1 and 2 are the roots, 4 is alive.
    assert_eq!([create(), create(), create()], [u32::MAX, 3, 5]);
}

#[tokio::test]
async fn a_program_that_exits_with_status_0_has_run_to_its_end_and_serves() {
    // What it did before is there afterwards.
    let program = |start: &str| {
        wat(&format!(
            r#"(module
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 100) "x-began")
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "malloc") (param i32) (result i32) (i32.const 1024))
            (func $begin (i32.store8 (i32.const 200) (i32.const 121)) (call $exit (i32.const 0)) unreachable)
            {start}
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $add (i32.const 0) (i32.const 100) (i32.const 7) (i32.const 200) (i32.const 1))))"#
        ))
    };
    let mirror = mirror().await;
    for start in [
        r#"(func (export "_start") (call $begin))"#,
        r#"(func (export "_initialize")) (func (export "main") (param i32 i32) (result i32) (call $begin) unreachable)"#,
        r#"(func (export "_initialize")) (func (export "__main_void") (result i32) (call $begin) unreachable)"#,
    ] {
        let config = format!(
            "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: program }} ], \
               routes: [ {{ cluster: up }} ] }} }} ]\nclusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
            mirror.address
        );
        let gateway = Setup::new().plugin_bytes("program", &program(start)).config(config).start();
        for _ in 0..3 {
            let text = get(gateway.address("web"), "/").await.text();
            assert!(text.contains("x-began: y"), "{start}: {text}");
        }
        let metrics = gateway.admin("GET", "/metrics").await.text();
        let faults = metrics.lines().filter(|line| line.starts_with("weir_plugin_faults_total"));
        assert!(faults.clone().count() > 0 && faults.clone().all(|line| line.ends_with(" 0")), "{metrics}");
    }
    // In a callback an exit is the end of the instance, whatever its status; and so it is of `_initialize`.
    let initialize = program(r#"(func (export "_initialize") (call $begin))"#);
    let config = "listeners: [ { name: web, address: \"127.0.0.1:0\", http: { filters: [ { plugin: program } ], \
                    routes: [ { respond: { status: 200 } } ] } } ]";
    let gateway = Setup::new().plugin_bytes("program", &initialize).config(config).launch();
    assert_eq!(gateway.wait_for_exit().code(), Some(1));
    gateway.wait_for_log("_initialize failed");
}

#[tokio::test]
async fn filters_of_one_vm_can_act_in_each_others_streams_as_in_envoy_and_nobody_else_can() {
    const REPLY: &str = "proxy_send_local_response 418 by_two \"\" [] -1";
    let mirror = mirror().await;
    for (vm_ids, shared) in [(["same", "same"], true), (["one", "two"], false), (["", ""], false)] {
        // Root contexts have the first numbers, then streams: in a VM of both, the first one's stream is 3.
        let forge = format!(
            "request_headers: proxy_set_effective_context 3; proxy_get_property plugin_root_id; {REPLY}"
        );
        let filters = [puppet("one", vm_ids[0], "", ""), puppet("two", vm_ids[1], "", &forge)];
        let gateway = gateway(&filters, 1, &mirror);
        assert_eq!(get(gateway.address("web"), "/first").await.status, 418);
        let first = gateway.wait_for_access("/first");
        // Whose stream it is decides who has replied.
        assert_eq!(first["filter"], if shared { "one" } else { "two" });
        let stream = first_stream(&gateway, "two");
        gateway.wait_for_log(&format!("{stream} delete []"));
        let own = if shared { "\"one\"" } else { "\"two\"" };
        let context = if shared { "0" } else { "2" };
        let log = gateway.log();
        assert!(log.contains(&format!("set_effective_context = {context}")), "{vm_ids:?}: {log}");
        assert!(log.contains(&format!("get_property = 0 {own}")), "{vm_ids:?}: {log}");
        // A stream that is over is nobody's to act in; its number is not given to another.
        assert_eq!(get(gateway.address("web"), "/second").await.status, 418);
        assert_eq!(gateway.wait_for_access("/second")["filter"], "two", "{vm_ids:?}");
    }
}
