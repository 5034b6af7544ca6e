//! Quotas: what plugins make the host keep and do has an end, and what is beyond it is counted.

use serde_json::{Value as Json, json};
use weir_tests::guests::wat;
use weir_tests::http::{Client, full, get, holding, mirror};
use weir_tests::puppet::{self, results};
use weir_tests::upstream::{Upstream, background};
use weir_tests::wait::until;
use weir_tests::{Gateway, Setup};

/// A gateway on one worker; `plugins` and `filters` are its sections, and `other` the cluster that filters may call.
fn gateway(setup: Setup, plugins: &str, filters: &[Json], up: &Upstream) -> Gateway {
    let config = format!(
        "runtime: {{ workers: 1 }}\n\
         plugins: {{ directory: plugins, cache: cache{plugins} }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: {}, routes: [ \
           {{ match: {{ path: /clean }}, cluster: up, filters: {{ one: off }} }}, {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        json!(filters),
        up.address
    );
    setup.config(config).start()
}

/// How often the filter `one` was refused something.
async fn refused(gateway: &Gateway, quota: &str) -> u64 {
    let metrics = gateway.admin("GET", "/metrics").await.text();
    let series = metrics.lines().find_map(|line| {
        let (labels, count) = line.strip_prefix("weir_plugin_quota_refused_total{")?.split_once("} ")?;
        (labels.contains("filter=\"one\"") && labels.contains(&format!("quota=\"{quota}\""))).then_some(count)
    });
    series.unwrap_or_else(|| panic!("no series of {quota}")).parse().expect("a number")
}

/// A guest that grows its memory by 64 pages of 64 KiB, and its table by 60,000 elements, in each request until it may
/// not any more, and says in headers what came of it: `+` or `-`.
fn growing() -> Vec<u8> {
    wat(r#"(module
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (table $table 1 funcref)
        (data (i32.const 100) "x-memoryx-table+-")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func $say (param $name i32) (param $len i32) (param $grown i32)
            (drop (call $add (i32.const 0) (local.get $name) (local.get $len)
                (select (i32.const 116) (i32.const 115) (i32.eq (local.get $grown) (i32.const -1))) (i32.const 1))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $say (i32.const 100) (i32.const 8) (memory.grow (i32.const 64)))
            (call $say (i32.const 108) (i32.const 7) (table.grow $table (ref.null func) (i32.const 60000)))
            (i32.const 0)))"#)
}

#[tokio::test]
async fn growth_beyond_what_instance_plugin_and_all_plugins_have_fails_in_the_guest_and_is_counted() {
    let up = mirror().await;
    for (plugins, memory, quota) in [
        ("", "6MiB", "memory"),
        (", memory_per_plugin: 6MiB", "64MiB", "memory_per_plugin"),
        (", memory_total: 6MiB", "64MiB", "memory_total"),
    ] {
        let filters = [json!({ "plugin": "growing", "name": "one", "memory": memory })];
        let setup = Setup::new().plugin_bytes("growing", &growing());
        let gateway = gateway(setup, plugins, &filters, &up);
        let mut said = Vec::new();
        for _ in 0..3 {
            let text = get(gateway.address("web"), "/").await.text();
            let header =
                |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            said.push((header("x-memory: ").expect("it says"), header("x-table: ").expect("it says")));
        }
        let said: Vec<_> = said.iter().map(|(memory, table)| (memory.as_str(), table.as_str())).collect();
        assert_eq!(said, [("+", "+"), ("-", "-"), ("-", "-")], "{quota}");
        assert_eq!((refused(&gateway, quota).await, refused(&gateway, "table").await), (2, 2), "{quota}");
    }
}

#[tokio::test]
async fn memory_of_all_plugins_is_shared_by_them_and_comes_back_with_an_instance() {
    let up = mirror().await;
    let filters =
        [json!({ "plugin": "growing", "name": "one" }), json!({ "plugin": "another", "name": "two" })];
    let setup = Setup::new().plugin_bytes("growing", &growing()).plugin_bytes("another", &growing());
    let gateway = gateway(setup, ", memory_total: 7MiB", &filters, &up);
    let text = get(gateway.address("web"), "/").await.text();
    let grown: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("x-memory: ")).collect();
    assert_eq!(grown, ["+", "-"], "the second has what the first has left: {text}");
    // A new version of the first begins anew; then there is room for the other, which may take it first.
    let mut other = growing();
    other.extend_from_slice(&[0, 5, 4, b'm', b'a', b'r', b'k']);
    gateway.swap_plugin("growing", &other);
    let mut grown_again = 0;
    until("the memory of the version before", async || {
        let text = get(gateway.address("web"), "/").await.text();
        grown_again += text.lines().filter(|line| *line == "x-memory: +").count();
        (grown_again > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_log_lines_is_cut_to_its_quota_and_what_is_dropped_is_counted() {
    let up = mirror().await;
    let lines = ["log \"a line of the flood\""; 100].join("; ");
    let mut filter = puppet::filter(&format!("request_headers: {lines}"));
    filter["log_lines"] = 20.into();
    filter["cpu"] = "1s".into();
    let gateway = gateway(Setup::new().plugin("puppet"), "", &[filter], &up);
    let began = std::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    }
    let logged = gateway.log().matches("a line of the flood").count() as u64;
    let seconds = began.elapsed().as_secs() + 2;
    assert!(logged <= 20 * seconds, "{logged} lines in {seconds} s");
    assert!(refused(&gateway, "log").await >= 1000 - logged);
    gateway.wait_for_log("refused: a quota of the filter is used up");
}

#[tokio::test]
async fn lines_that_are_too_many_bytes_are_dropped_and_others_are_not() {
    let up = mirror().await;
    let long = "x".repeat(3000);
    let mut filter = puppet::filter(&format!("request_headers: log \"{long}\"\nlog: log \"the short one\""));
    filter["log_bytes"] = "2KiB".into();
    let gateway = gateway(Setup::new().plugin("puppet"), "", &[filter], &up);
    until("a second with room for a short line", async || {
        assert_eq!(get(gateway.address("web"), "/clean").await.status, 200);
        assert_eq!(get(gateway.address("web"), "/").await.status, 200);
        (refused(&gateway, "log").await > 0).then_some(())
    })
    .await;
    assert!(!gateway.logged(&long));
}

#[tokio::test]
async fn streams_beyond_the_quota_meet_the_failure_policy_and_the_others_go_on() {
    let (up, answer) = holding().await;
    for (policy, status) in [("closed", 503), ("open", 200)] {
        let mut filter = puppet::filter("");
        filter["streams"] = 2.into();
        filter["on_failure"] = policy.into();
        let gateway = gateway(Setup::new().plugin("puppet"), "", &[filter], &up);
        let address = gateway.address("web");
        let held: Vec<_> = (0..2).map(|_| background().spawn(get(address, "/held"))).collect();
        gateway.wait_for_log("stream2 request_headers");
        until("both to be at the upstream", async || (answer.receiver_count() == 2).then_some(())).await;
        assert_eq!(get(address, "/").await.status, status, "{policy}");
        assert_eq!(get(address, "/clean").await.status, 200, "{policy}");
        assert_eq!(refused(&gateway, "streams").await, 1, "{policy}");
        answer.send(()).expect("both wait");
        for held in held {
            assert_eq!(held.await.expect("no panic").status, 200, "{policy}");
        }
        gateway.wait_for_log("stream2 delete");
        assert_eq!(get(address, "/").await.status, 200, "there is room again");
        assert_eq!(refused(&gateway, "streams").await, 1, "{policy}");
    }
}

#[tokio::test]
async fn calls_beyond_the_quota_are_refused_with_a_status_and_counted() {
    let up = mirror().await;
    // Whoever has too many is told so, whatever it asks for: it is not read.
    let http = [
        r#"proxy_http_call up [:method=GET|:path=/|:authority=o] "" [] 5000"#,
        r#"proxy_http_call nobody [] "" [] 5000"#,
    ];
    let grpc = [r#"proxy_grpc_call up s m [] "" 5000"#, r#"proxy_grpc_call nobody s m [] "" 5000"#];
    for [call, wrong] in [http, grpc] {
        let calls = [call, call, call, call, wrong].join("; ");
        let mut filter = puppet::filter(&format!("request_headers: {wrong}; {calls}"));
        filter["calls"] = 3.into();
        filter["grants"] = json!({ "clusters": ["up"] });
        let gateway = gateway(Setup::new().plugin("puppet"), "", &[filter], &up);
        assert_eq!(get(gateway.address("web"), "/").await.status, 200);
        let seen = results(&gateway, 1, "request_headers");
        let statuses: Vec<_> =
            seen.iter().map(|result| result.split(' ').next().unwrap_or_default()).collect();
        assert!(["2", "4"].contains(&statuses[0]), "there is room, and it is read: {statuses:?}");
        assert_eq!(statuses[1..], ["0", "0", "0", "10", "10"], "{call}");
        assert_eq!(refused(&gateway, "calls").await, 2);
    }
}

#[tokio::test]
async fn what_the_host_holds_of_edited_bodies_is_no_more_than_the_filters_memory() {
    // It appends a mebibyte to the body, three times, and says how that went: by a digit, the status.
    let guest = wat(r#"(module
        (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (memory (export "memory") 17)
        (data (i32.const 100) "status 0")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func $append
            (i32.store8 (i32.const 107) (i32.add (i32.const 48)
                (call $set (i32.const 0) (i32.const 0xfffffff) (i32.const 0) (i32.const 1024) (i32.const 1048576))))
            (drop (call $log (i32.const 2) (i32.const 100) (i32.const 8))))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
            (call $append) (call $append) (call $append)
            (i32.const 0)))"#);
    let up = mirror().await;
    let filters = [json!({ "plugin": "appending", "name": "one", "memory": "2MiB" })];
    let gateway = gateway(Setup::new().plugin_bytes("appending", &guest), "", &filters, &up);
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("POST", "/").body(full("y")).expect("a request");
    // What comes of a request that has grown so much is not the matter here.
    let _ = client.call(request).await;
    gateway.wait_for_log("status 2");
    assert_eq!(gateway.log().matches("status 0").count(), 1, "{}", gateway.log());
    assert!(refused(&gateway, "held").await >= 2);
}

/// A guest that keeps a mebibyte more in its shared data, and one more in a queue, with each request, and says in headers
/// what came of it: `+` or `-`.
fn hoarding() -> Vec<u8> {
    wat(r#"(module
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_set_shared_data" (func $set (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
        (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
        (memory (export "memory") 18)
        (data (i32.const 100) "x-datax-queue+-")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (i32.eqz (call $register (i32.const 100) (i32.const 1) (i32.const 200))))
        (func $say (param $name i32) (param $len i32) (param $status i32)
            (drop (call $add (i32.const 0) (local.get $name) (local.get $len)
                (select (i32.const 113) (i32.const 114) (i32.eqz (local.get $status))) (i32.const 1))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (i32.store (i32.const 300) (i32.add (i32.load (i32.const 300)) (i32.const 1)))
            (call $say (i32.const 100) (i32.const 6)
                (call $set (i32.const 300) (i32.const 4) (i32.const 2048) (i32.const 1048576) (i32.const 0)))
            (call $say (i32.const 106) (i32.const 7)
                (call $enqueue (i32.load (i32.const 200)) (i32.const 2048) (i32.const 1048576)))
            (i32.const 0)))"#)
}

#[tokio::test]
async fn shared_data_and_queues_of_all_plugins_have_one_bound_within_which_each_has_a_little() {
    let up = mirror().await;
    let mut small =
        puppet::filter("request_headers: proxy_set_shared_data k a_value 0; proxy_get_shared_data k");
    small["name"] = "small".into();
    let filters = [
        json!({ "plugin": "hoarding", "name": "one" }),
        json!({ "plugin": "hoarding", "name": "two" }),
        small,
    ];
    let setup = Setup::new().plugin_bytes("hoarding", &hoarding()).plugin("puppet");
    let gateway = gateway(setup, ", shared_total: 5200KiB", &filters, &up);
    let mut said = String::new();
    for _ in 0..3 {
        let text = get(gateway.address("web"), "/").await.text();
        let marks = text
            .lines()
            .filter_map(|line| line.strip_prefix("x-data: ").or_else(|| line.strip_prefix("x-queue: ")));
        said.extend(marks);
        said.push(' ');
    }
    // The mirror tells headers in their order: both data, then both queues, or one after the other.
    assert_eq!(said.matches('+').count(), 5, "five of them fit: {said}");
    assert_eq!(said.split(' ').next().map(|first| first.matches('+').count()), Some(4), "{said}");
    assert!(refused(&gateway, "shared_total").await >= 3, "{said}");
    assert_eq!(refused(&gateway, "shared").await, 0);
    let log = gateway.log();
    assert_eq!(log.matches("a_value").count(), 3, "the small one has what it needs: {log}");
}

#[tokio::test]
async fn a_vm_id_has_so_much_shared_data_and_what_is_beyond_it_is_counted() {
    let up = mirror().await;
    let filters = [json!({ "plugin": "hoarding", "name": "one", "cpu": "1s" })];
    let setup = Setup::new().plugin_bytes("hoarding", &hoarding());
    let gateway = gateway(setup, ", shared_total: 1GiB", &filters, &up);
    let mut client = Client::h1(gateway.address("web")).await;
    let mut kept = 0;
    while client.get("/").await.text().contains("x-data: +") {
        kept += 1;
    }
    assert_eq!(kept, 63, "64 MiB, less the keys");
    // The queue was full at 16 MiB.
    assert_eq!(refused(&gateway, "shared").await, 1 + 64 - 16);
    assert_eq!(refused(&gateway, "shared_total").await, 0);
}

#[tokio::test]
async fn instances_beyond_those_of_a_plugin_are_refused_and_the_configuration_before_serves() {
    let up = mirror().await;
    let calm = wat(r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024)))"#);
    let config = |count: usize| {
        let filter =
            |number| json!({ "plugin": "calm", "name": format!("f{number}"), "config": format!("{number}") });
        let filters: Vec<_> =
            (0..count).map(filter).chain([json!({ "plugin": "other", "name": "one" })]).collect();
        format!(
            "runtime: {{ workers: 10 }}\n\
             listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: {}, routes: [ {{ cluster: up }} ] }} }} ]\n\
             clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
            json!(filters),
            up.address
        )
    };
    let setup = Setup::new().plugin_bytes("calm", &calm).plugin_bytes("other", &calm);
    let gateway = setup.config(config(1)).start();
    gateway.write_config(&config(51));
    let line = gateway.wait_for_log("the configuration is refused");
    gateway.wait_for_log("`instances`");
    assert!(gateway.logged("refused: a quota of the filter is used up plugin=\"calm\""), "{line}");
    let metrics = gateway.admin("GET", "/metrics").await.text();
    let counted = |line: &&str| {
        line.starts_with("weir_plugin_quota_refused_total") && line.contains("quota=\"instances\"")
    };
    let refused: u64 =
        metrics.lines().filter(counted).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
    assert!(refused >= 1, "{metrics}");
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    // As many as there may be are taken, those that are there included; other plugins have theirs.
    gateway.write_config(&config(50));
    gateway.wait_for_log("the configuration is in force");
    assert_eq!(gateway.plugin("calm").await["instances"], 500);
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
}

#[tokio::test]
async fn a_table_that_begins_with_more_elements_than_there_may_be_is_refused_with_the_reason() {
    let module = |elements: usize| {
        wat(&format!(
            r#"(module (memory (export "memory") 1) (table {elements} funcref) (func (export "proxy_abi_version_0_2_1"))
            (func (export "malloc") (param i32) (result i32) (i32.const 1024)))"#
        ))
    };
    let up = mirror().await;
    let filters = [json!({ "plugin": "tables", "name": "one" })];
    let gateway = gateway(Setup::new().plugin_bytes("tables", &module(100_000)), "", &filters, &up);
    gateway.swap_plugin("tables", &module(100_001));
    let line = gateway.wait_for_log("a version is refused");
    assert!(line.contains("table"), "{line}");
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
}
