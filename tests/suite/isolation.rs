//! `isolation: stream`: each stream has a copy of the plugin as it was when it was configured, and nothing else of it.

use serde_json::{Value as Json, json};
use weir_tests::guests::wat;
use weir_tests::http::{Client, empty, get, holding, mirror};
use weir_tests::puppet;
use weir_tests::upstream::{Upstream, background};
use weir_tests::wait::until;
use weir_tests::{Gateway, Setup};

fn config(workers: usize, filters: &[Json], up: &Upstream) -> String {
    format!(
        "runtime: {{ workers: {workers} }}\n\
         plugins: {{ directory: plugins, cache: cache }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: {}, routes: [ \
           {{ match: {{ path: /clean }}, cluster: up, filters: {{ one: off }} }}, {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        json!(filters),
        up.address
    )
}

/// A guest that counts its calls in a global, in its memory and in a metric, sets its timer when it is configured, and
/// tells of its counts in headers: `a` is none. With the header `x-fault` it traps, or loops when that is `loop`.
fn counting() -> Vec<u8> {
    wat(r#"(module
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
        (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
        (memory (export "memory") 2)
        (global $count (mut i32) (i32.const 96))
        (data (i32.const 100) "x-globalx-memoryconfiguredstreamsticksx-fault")
        (data (i32.const 80) "\60")
        (start $begin)
        (func $begin (global.set $count (i32.add (global.get $count) (i32.const 1))))
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func $more
            (global.set $count (i32.add (global.get $count) (i32.const 1)))
            (i32.store8 (i32.const 80) (i32.add (i32.load8_u (i32.const 80)) (i32.const 1))))
        (func $metric (param $name i32) (param $len i32) (param $at i32)
            (drop (call $define (i32.const 0) (local.get $name) (local.get $len) (local.get $at))))
        (func $inc (param $at i32)
            (drop (call $increment (i32.load (local.get $at)) (i64.const 1))))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (call $metric (i32.const 116) (i32.const 10) (i32.const 200))
            (call $metric (i32.const 126) (i32.const 7) (i32.const 204))
            (call $metric (i32.const 133) (i32.const 5) (i32.const 208))
            (call $inc (i32.const 200))
            (call $more)
            ;; The second page is there before the streams are, and not empty.
            (i32.store (i32.const 70000) (i32.const 7))
            (drop (call $tick (i32.const 5)))
            (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
            (call $more) (call $inc (i32.const 208)))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (if (i32.ne (i32.load (i32.const 70000)) (i32.const 7)) (then unreachable))
            (if (i32.eqz (call $get (i32.const 0) (i32.const 138) (i32.const 7) (i32.const 300) (i32.const 304)))
                (then (loop $again (br_if $again (i32.eq (i32.load8_u (i32.load (i32.const 300))) (i32.const 108))))
                      unreachable))
            (call $more)
            (call $inc (i32.const 204))
            (i32.store8 (i32.const 90) (global.get $count))
            (drop (call $add (i32.const 0) (i32.const 100) (i32.const 8) (i32.const 90) (i32.const 1)))
            (drop (call $add (i32.const 0) (i32.const 108) (i32.const 8) (i32.const 80) (i32.const 1)))
            (i32.const 0)))"#)
}

/// The value of a metric of the guest.
async fn metric(gateway: &Gateway, name: &str) -> u64 {
    let metrics = gateway.admin("GET", "/metrics").await.text();
    let prefix = format!("weir_plugin_custom_{name}");
    let series = metrics.lines().find_map(|line| line.strip_prefix(&prefix)?.split_once("} "));
    series.unwrap_or_else(|| panic!("no series of {name}")).1.parse().expect("a number")
}

async fn status_of(gateway: &Gateway, fault: &str) -> u16 {
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("GET", "/").header("x-fault", fault).body(empty()).expect("a request");
    client.call(request).await.expect("an answer").status.as_u16()
}

async fn faults(gateway: &Gateway, kind: &str) -> u64 {
    let plugin = gateway.plugin("counting").await;
    plugin["versions"][0]["filters"][0]["faults"][kind].as_u64().expect("a number")
}

fn per_stream(plugin: &str) -> Json {
    json!({ "plugin": plugin, "name": "one", "isolation": "stream" })
}

fn counting_gateway(workers: usize, filter: Json, up: &Upstream) -> Gateway {
    let setup = Setup::new().plugin_bytes("counting", &counting());
    setup.config(config(workers, &[filter], up)).start()
}

#[tokio::test]
async fn each_stream_begins_with_globals_and_memory_as_they_were_configured_and_configure_runs_once() {
    let up = mirror().await;
    let gateway = counting_gateway(2, per_stream("counting"), &up);
    for request in 0..50 {
        let text = get(gateway.address("web"), "/").await.text();
        // The start function, configure, and this request.
        assert!(text.contains("x-global: c\n"), "request {request}: {text}");
        // Configure, and this request.
        assert!(text.contains("x-memory: b\n"), "request {request}: {text}");
    }
    assert_eq!(metric(&gateway, "configured").await, 1, "for two workers and fifty streams");
    assert_eq!(metric(&gateway, "streams").await, 50, "a metric has its number in every copy");
}

#[tokio::test]
async fn the_timer_that_was_set_while_configuring_runs_in_one_instance_of_each_worker() {
    let up = mirror().await;
    let gateway = counting_gateway(1, per_stream("counting"), &up);
    until("ticks", async || (metric(&gateway, "ticks").await > 3).then_some(())).await;
    let text = get(gateway.address("web"), "/").await.text();
    assert!(text.contains("x-global: c\n"), "the streams know nothing of them: {text}");
    until("the stream's instance to go", async || {
        let plugin = gateway.plugin("counting").await;
        (plugin["versions"][0]["filters"][0]["instances"] == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_trap_ends_its_stream_alone_however_often_it_comes() {
    let (up, answer) = holding().await;
    let gateway = counting_gateway(1, per_stream("counting"), &up);
    let address = gateway.address("web");
    let held = background().spawn(get(address, "/held"));
    until("it to be at the upstream", async || (answer.receiver_count() == 1).then_some(())).await;
    for _ in 0..200 {
        assert_eq!(status_of(&gateway, "trap").await, 503);
        assert_eq!(get(address, "/").await.status, 200);
    }
    answer.send(()).expect("it waits");
    assert_eq!(held.await.expect("no panic").status, 200, "it ran in an instance of its own");
    assert_eq!(faults(&gateway, "trap").await, 200);
    let metrics = gateway.admin("GET", "/metrics").await.text();
    let open = metrics.lines().find(|line| line.starts_with("weir_plugin_breakers_open{")).expect("a gauge");
    assert!(open.ends_with(" 0"), "{open}");
    assert!(gateway.log().matches("a plugin failed for a stream").count() < 100, "not each is told of");
}

#[tokio::test]
async fn overruns_of_streams_count_together_and_open_the_breaker() {
    let up = mirror().await;
    let gateway = counting_gateway(1, per_stream("counting"), &up);
    until("the breaker to open", async || {
        assert_eq!(status_of(&gateway, "loop").await, 503);
        let metrics = gateway.admin("GET", "/metrics").await.text();
        metrics
            .lines()
            .any(|line| line.starts_with("weir_plugin_breakers_open{") && line.ends_with(" 1"))
            .then_some(())
    })
    .await;
    assert_eq!(get(gateway.address("web"), "/clean").await.status, 200, "whom it does not concern");
}

#[tokio::test]
async fn a_stream_hears_of_its_own_calls_and_timers_and_shares_nothing_but_shared_data() {
    let up = mirror().await;
    let call = r#"proxy_http_call up [:method=GET|:path=/called|:authority=o] "" [] 5000"#;
    let script = format!(
        "configure: proxy_set_shared_data who configured 0\n\
         request_headers: proxy_get_shared_data who; proxy_set_shared_data who stream 0; {call}; return 1\n\
         http_call_response: proxy_set_effective_context 2; proxy_continue_stream 0"
    );
    let mut filter = puppet::filter(&script);
    filter["isolation"] = "stream".into();
    filter["grants"] = json!({ "clusters": ["up"] });
    let setup = Setup::new().plugin("puppet");
    let gateway = setup.config(config(1, &[filter], &up)).start();
    for request in 0..5 {
        assert_eq!(get(gateway.address("web"), "/").await.status, 200, "request {request}");
    }
    let log = gateway.log();
    let found: Vec<_> = log.lines().filter_map(|line| line.split_once("get_shared_data = 0 ")).collect();
    assert!(found.iter().zip(1..).all(|((_, value), at)| {
        value.starts_with(&format!("\"{}\" {at} ", if at == 1 { "configured" } else { "stream" }))
    }));
    assert_eq!(found.len(), 5);
    assert_eq!(log.matches(" http_call_response [").count(), 5, "each in the instance that called: {log}");
    assert_eq!(log.matches("stream1 request_headers").count(), 5, "each stream is the first of its instance");
}

#[tokio::test]
async fn streams_that_are_copies_of_one_instance_draw_different_random_numbers() {
    let up = mirror().await;
    let setup = Setup::new().plugin("random");
    let gateway = setup.config(config(1, &[per_stream("random")], &up)).start();
    let (mut fresh, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let text = get(gateway.address("web"), "/").await.text();
        let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        fresh.push(header("x-fresh: ").expect("it says"));
        kept.push(header("x-kept: ").expect("it says"));
    }
    fresh.sort();
    fresh.dedup();
    kept.dedup();
    assert_eq!((fresh.len(), kept.len()), (5, 1), "{fresh:?} {kept:?}");
}

#[tokio::test]
async fn the_standard_filters_run_with_an_instance_for_each_stream() {
    let up = mirror().await;
    let mut authz = per_stream("authz");
    authz["name"] = "authz".into();
    authz["config"] = json!({ "rules": [ { "allow": ["*"], "methods": ["GET"] } ] });
    let mut rewrite = per_stream("header-rewrite");
    rewrite["config"] = json!({ "request": { "set": { "x-team": "payments" } } });
    let setup = Setup::new().plugin("authz").plugin("header-rewrite");
    let gateway = setup.config(config(2, &[authz, rewrite], &up)).start();
    for _ in 0..20 {
        let answer = get(gateway.address("web"), "/").await;
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains("x-team: payments"));
    }
}

#[tokio::test]
async fn a_new_version_takes_the_place_of_one_with_an_instance_for_each_stream_under_load() {
    let up = mirror().await;
    let gateway = counting_gateway(2, per_stream("counting"), &up);
    let address = gateway.address("web");
    let load = background().spawn(async move {
        let mut client = Client::h1(address).await;
        for request in 0..2_000 {
            let get = client.request("GET", "/").body(empty()).expect("a request");
            assert_eq!(client.call(get).await.expect("an answer").status, 200, "request {request}");
        }
    });
    for mark in 0..3 {
        let mut next = counting();
        next.extend_from_slice(&[0, 5, 4, b'm', b'a', b'r', b'0' + mark]);
        gateway.swap_plugin("counting", &next);
        gateway.wait_for_log_count("a new version serves", usize::from(mark) + 1);
    }
    load.await.expect("no request failed");
}

/// The refusal of a guest with this in it, for `isolation: stream`; that it runs without is made sure.
async fn refusal(inside: &str) -> String {
    let up = mirror().await;
    let guest = wat(&format!(
        r#"(module
            (memory (export "memory") 1)
            (table $table 4 funcref)
            (elem $elem func $nothing)
            (data $data "data")
            (func $nothing)
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "malloc") (param i32) (result i32) (i32.const 1024))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {inside} (i32.const 0)))"#
    ));
    let shared = json!({ "plugin": "odd", "name": "one" });
    let gateway = Setup::new().plugin_bytes("odd", &guest).config(config(1, &[shared], &up)).start();
    assert_eq!(get(gateway.address("web"), "/").await.status, 200, "{inside}");
    gateway.write_config(&config(1, &[per_stream("odd")], &up));
    let answer = gateway.admin("POST", "/reload").await;
    assert_eq!(get(gateway.address("web"), "/").await.status, 200, "what served goes on");
    answer.text()
}

#[tokio::test]
async fn an_instance_for_each_stream_and_calls_that_give_way_are_refused_together() {
    let up = mirror().await;
    let gateway = counting_gateway(1, per_stream("counting"), &up);
    let mut both = per_stream("counting");
    both["scheduling"] = "preemptible".into();
    gateway.write_config(&config(1, &[both], &up));
    let said = gateway.admin("POST", "/reload").await.text();
    assert!(said.contains("do not go together"), "{said}");
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
}

#[tokio::test]
async fn a_module_that_changes_tables_or_drops_segments_is_refused_for_this_mode_with_the_reason() {
    for (inside, reason) in [
        ("(table.set $table (i32.const 0) (ref.null func))", "table.set"),
        ("(drop (table.grow $table (ref.null func) (i32.const 1)))", "table.grow"),
        ("(data.drop $data)", "data.drop"),
        ("(elem.drop $elem)", "elem.drop"),
    ] {
        let said = refusal(inside).await;
        assert!(said.contains(reason), "{said}");
        assert!(said.contains("use `isolation: worker`"), "{said}");
    }
}

/// A guest that fills some pages of its memory when it is configured. In a stream it looks whether all of its memory is
/// as it was then, and traps when it is not; then it writes to a hundred places, and grows, by the time of day, and
/// writes there too.
fn scribbling() -> Vec<u8> {
    wat(r#"(module
        (import "env" "proxy_get_current_time_nanoseconds" (func $now (param i32) (result i32)))
        (memory (export "memory") 8)
        (global $seed (mut i64) (i64.const 0))
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 64))
        (func $expected (param $at i32) (result i32)
            ;; Two pages of numbers, two of nothing, and so on.
            (if (result i32) (i32.and (local.get $at) (i32.const 0x20000))
                (then (i32.const 0))
                (else (i32.or (i32.mul (local.get $at) (i32.const 31)) (i32.const 1)))))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (local $at i32)
            (local.set $at (i32.const 1024))
            (loop $next
                (if (i32.eqz (i32.and (local.get $at) (i32.const 0x20000)))
                    (then (i32.store (local.get $at) (call $expected (local.get $at)))))
                (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 256))) (i32.const 0x80000))))
            (i32.const 1))
        (func $random (result i32)
            (global.set $seed (i64.add (i64.mul (global.get $seed) (i64.const 6364136223846793005)) (i64.const 1442695040888963407)))
            (i32.wrap_i64 (i64.shr_u (global.get $seed) (i64.const 33))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (local $at i32) (local $count i32)
            (if (i32.ne (memory.size) (i32.const 8)) (then unreachable))
            (local.set $at (i32.const 1024))
            (loop $next
                (if (i32.ne (i32.load (local.get $at)) (call $expected (local.get $at))) (then unreachable))
                (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 256))) (i32.const 0x80000))))
            (drop (call $now (i32.const 0)))
            (global.set $seed (i64.load (i32.const 0)))
            (i64.store (i32.const 0) (i64.const 0))
            (drop (memory.grow (i32.and (call $random) (i32.const 7))))
            (loop $next
                (local.set $at (i32.rem_u (call $random) (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4))))
                ;; What a later stream looks at.
                (i32.store (i32.and (local.get $at) (i32.const 0xffffff00)) (i32.const -1))
                (br_if $next (i32.lt_u (local.tee $count (i32.add (local.get $count) (i32.const 1))) (i32.const 100))))
            (i32.const 0)))"#)
}

#[tokio::test]
async fn whatever_a_stream_has_written_the_next_finds_all_of_its_memory_as_it_was_configured() {
    let up = mirror().await;
    let setup = Setup::new().plugin_bytes("scribbling", &scribbling());
    let mut filter = per_stream("scribbling");
    filter["cpu"] = "50ms".into();
    let gateway = setup.config(config(1, &[filter], &up)).start();
    let mut client = Client::h1(gateway.address("web")).await;
    for request in 0..500 {
        assert_eq!(client.get("/").await.status, 200, "request {request}");
    }
    // Where streams share an instance the second of them sees what the first has written.
    let setup = Setup::new().plugin_bytes("scribbling", &scribbling());
    let shared = json!({ "plugin": "scribbling", "name": "one", "cpu": "50ms" });
    let gateway = setup.config(config(1, &[shared], &up)).start();
    let mut client = Client::h1(gateway.address("web")).await;
    let statuses = [client.get("/").await.status, client.get("/").await.status];
    assert_eq!(statuses.map(|status| status.as_u16()), [200, 503]);
}
