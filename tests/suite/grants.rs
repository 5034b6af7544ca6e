//! Grants: a filter has what its section says, and nothing of what it only asks for.

use serde_json::{Value as Json, json};
use weir_tests::http::{Client, empty, full, get, mirror, upstream};
use weir_tests::puppet::results;
use weir_tests::upstream::Upstream;
use weir_tests::{Gateway, Setup};

/// A filter of the puppet with this script and these grants.
fn filter(name: &str, script: &str, grants: Json) -> Json {
    json!({ "plugin": "puppet", "name": name, "root_id": name, "vm_id": name, "config": script, "grants": grants })
}

/// A gateway with these filters on one worker, and the clusters `up` and `other`.
fn gateway(filters: &[Json], up: &Upstream, other: &Upstream) -> Gateway {
    let config = format!(
        "runtime: {{ workers: 1 }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: {}, routes: [ \
           {{ name: moved, match: {{ path: /moved }}, respond: {{ status: 299 }} }}, {{ name: main, cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }}, {{ name: other, endpoints: [\"{}\"] }} ]",
        json!(filters),
        up.address,
        other.address
    );
    Setup::new().plugin("puppet").config(config).start()
}

/// How often the filter `one` was denied something, by the counter.
async fn denied(gateway: &Gateway, grant: &str) -> u64 {
    let metrics = gateway.admin("GET", "/metrics").await.text();
    let series = format!("weir_plugin_denied_total{{plugin=\"puppet\",filter=\"one\",grant=\"{grant}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
    line.unwrap_or_else(|| panic!("no {series}")).parse().expect("a number")
}

/// What everybody may do, and what nobody may without being granted it.
const EVERYTHING: &str = r#"request_headers: proxy_get_header_map_value 0 x-a; proxy_add_header_map_value 0 x-b 1; proxy_get_property "request\0path"; proxy_set_property own 1; proxy_call_foreign_function uncompress ""; proxy_http_call other [:method=GET|:path=/called|:authority=o] "" [] 1000; proxy_grpc_call other s m [] "x" 1000; proxy_grpc_stream other s m []; proxy_call_foreign_function expr_create "'a'"; proxy_call_foreign_function set_envoy_filter_state "\x0a\x0cenvoy.string\x12\x01x"; proxy_resolve_shared_queue other jobs"#;

#[tokio::test]
async fn without_grants_a_filter_has_its_stream_and_nothing_beyond_it() {
    let (up, other) = (mirror().await, mirror().await);
    let gateway = gateway(&[filter("one", EVERYTHING, json!({}))], &up, &other);
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("GET", "/x").header("x-a", "a").body(empty()).expect("a request");
    let answer = client.call(request).await.expect("an answer");
    assert!(answer.text().contains("x-b: 1"), "{}", answer.text());
    let seen = results(&gateway, 1, "request_headers");
    let allowed = ["0 \"a\"", "0", "0 \"/x\"", "0", "3"];
    assert_eq!(seen[..5], allowed, "{seen:?}");
    // The answers of a cluster, a function and a queue that there are not: SDKs know what to do with them.
    assert_eq!(seen[5..], ["2", "4", "4", "1", "1", "1"], "{seen:?}");
    for (grant, count) in
        [("clusters", 3), ("foreign_functions", 2), ("shared_data", 1), ("headers", 0), ("body", 0)]
    {
        assert_eq!(denied(&gateway, grant).await, count, "{grant}");
    }
    let line = gateway.wait_for_log("denied: a plugin asked for \"other\"");
    assert!(line.contains("plugin=\"puppet\" filter=\"one\" grant=\"clusters\""), "{line}");
}

#[tokio::test]
async fn what_is_granted_works_and_what_is_granted_to_another_filter_does_not() {
    let up = mirror().await;
    let (told, mut called) = tokio::sync::mpsc::unbounded_channel();
    let other = upstream(move |request| {
        told.send(request.uri().path().to_owned()).expect("the test listens");
        async { http::Response::new(full("called")) }
    })
    .await;
    let grants = json!({
        "clusters": ["other"], "shared_data": ["other"],
        "foreign_functions": ["expr_create", "set_envoy_filter_state"],
    });
    let queue = "configure: proxy_register_shared_queue jobs";
    let filters = [
        filter("one", EVERYTHING, json!({ "clusters": ["up"] })),
        filter("other", queue, json!({})),
        filter("granted", EVERYTHING, grants),
    ];
    let gateway = gateway(&filters, &up, &other);
    assert_eq!(get(gateway.address("web"), "/x").await.status, 200);
    assert_eq!(called.recv().await.as_deref(), Some("/called"));
    gateway.wait_for_log("stream1 delete [] plugin=\"puppet\" filter=\"granted\"");
    for (function, status) in [
        ("http_call", 0),
        ("grpc_call", 0),
        ("grpc_stream", 0),
        ("call_foreign_function", 0),
        ("resolve_shared_queue", 0),
    ] {
        let line = format!("stream1 {function} = {status}");
        let of_granted =
            |log: &str| log.lines().any(|l| l.contains(&line) && l.contains("filter=\"granted\""));
        assert!(of_granted(&gateway.log()), "{line}: {}", gateway.log());
    }
    assert_eq!(results(&gateway, 1, "request_headers")[5..], ["2", "4", "4", "1", "1", "1"]);
    assert_eq!(denied(&gateway, "clusters").await, 3);
}

#[tokio::test]
async fn a_filter_that_may_only_read_headers_cannot_change_them_and_one_that_may_not_sees_none() {
    let (up, other) = (mirror().await, mirror().await);
    let script = r#"request_headers: proxy_get_header_map_value 0 x-a; proxy_get_property "request\0headers\0x-a"; proxy_get_header_map_pairs 0; proxy_add_header_map_value 0 x-b 1; proxy_remove_header_map_value 0 x-a; proxy_get_property plugin_name"#;
    for (headers, expected, denials) in [
        ("read", ["0 \"a\"", "0 \"a\"", "", "2", "2", "0 \"one\""], 2),
        ("none", ["1", "1", "0 \"\"", "2", "2", "0 \"one\""], 5),
    ] {
        let gateway = gateway(&[filter("one", script, json!({ "headers": headers }))], &up, &other);
        let mut client = Client::h1(gateway.address("web")).await;
        let request = client.request("GET", "/x").header("x-a", "a").body(empty()).expect("a request");
        let text = client.call(request).await.expect("an answer").text();
        assert!(text.contains("x-a: a") && !text.contains("x-b"), "{headers}: {text}");
        let seen = results(&gateway, 1, "request_headers");
        for (at, expected) in expected.iter().enumerate().filter(|(_, expected)| !expected.is_empty()) {
            assert_eq!(seen[at], *expected, "{headers}, call {at}: {seen:?}");
        }
        assert_eq!(denied(&gateway, "headers").await, denials, "{headers}");
    }
}

#[tokio::test]
async fn bodies_properties_replies_and_routes_are_kept_from_whom_they_are_not_granted() {
    let (up, other) = (mirror().await, mirror().await);
    let script = "request_headers: proxy_replace_header_map_value 0 \":path\" /moved; proxy_get_property \"source\\0address\"; proxy_set_property own 1; proxy_call_foreign_function clear_route_cache \"\"\n\
                  request_body: proxy_get_buffer_bytes 0 0 9; proxy_set_buffer_bytes 0 0 9 changed; proxy_send_local_response 418 \"\" \"\" [] -1; proxy_close_stream 0";
    for narrowed in [false, true] {
        let grants = match narrowed {
            true => json!({ "body": "none", "properties": "none", "reply": false, "route": false }),
            false => json!({}),
        };
        let mut filter = filter("one", script, grants);
        filter["on_failure"] = "open".into();
        let gateway = gateway(&[filter], &up, &other);
        let mut client = Client::h1(gateway.address("web")).await;
        let request = client.request("POST", "/x").body(full("asked")).expect("a request");
        let answer = client.call(request).await;
        if !narrowed {
            // The route that its edit led to answers; and it may have been reset by then.
            assert!(answer.is_err() || answer.expect("an answer").status != 200);
            assert_eq!(denied(&gateway, "route").await, 0);
            continue;
        }
        let text = answer.expect("an answer").text();
        assert!(text.starts_with("POST /moved ") && text.contains("asked"), "{text}");
        let (headers, body) = (results(&gateway, 1, "request_headers"), results(&gateway, 1, "request_body"));
        assert_eq!(headers, ["0", "1", "2", "1"]);
        // SDKs panic when a reply or an end is anything but OK.
        assert_eq!(body[..4], ["1", "2", "0", "0"]);
        for (grant, least) in [("body", 2), ("properties", 2), ("reply", 2), ("route", 1)] {
            assert!(denied(&gateway, grant).await >= least, "{grant}");
        }
    }
}

#[tokio::test]
async fn the_number_of_another_filters_queue_opens_nothing() {
    let (up, other) = (mirror().await, mirror().await);
    let owner = "configure: proxy_register_shared_queue jobs; proxy_enqueue_shared_queue $last secret\n\
                 response_headers: proxy_dequeue_shared_queue 1; proxy_dequeue_shared_queue 1";
    let thief = "request_headers: proxy_dequeue_shared_queue 1; proxy_enqueue_shared_queue 1 forged";
    let gateway = gateway(&[filter("one", thief, json!({})), filter("owner", owner, json!({}))], &up, &other);
    assert_eq!(get(gateway.address("web"), "/x").await.status, 200);
    assert_eq!(results(&gateway, 1, "request_headers"), ["1", "1"]);
    assert!(gateway.logged("dequeue_shared_queue = 0 \"secret\""), "{}", gateway.log());
    assert!(gateway.logged("dequeue_shared_queue = 7"), "nothing was put in: {}", gateway.log());
    assert_eq!(denied(&gateway, "shared_data").await, 2);
}

#[tokio::test]
async fn a_flood_of_denials_is_counted_in_full_and_told_once_a_second() {
    let (up, other) = (mirror().await, mirror().await);
    let call = r#"proxy_http_call other [:method=GET|:path=/|:authority=o] "" [] 9"#;
    let script = format!("request_headers: {}", [call; 50].join("; "));
    let gateway = gateway(&[filter("one", &script, json!({}))], &up, &other);
    let began = std::time::Instant::now();
    let mut client = Client::h1(gateway.address("web")).await;
    for _ in 0..10 {
        assert_eq!(client.get("/x").await.status, 200);
    }
    assert_eq!(denied(&gateway, "clusters").await, 500);
    let told = gateway.log().matches("denied: a plugin asked for").count() as u64;
    assert!(told >= 1 && told <= began.elapsed().as_secs() + 2, "{told} lines");
}

#[tokio::test]
async fn the_environment_of_weir_is_seen_by_name_and_only_where_it_is_granted() {
    let (up, other) = (mirror().await, mirror().await);
    let path = std::env::var("PATH").expect("cargo has one");
    let filters = [
        filter("granted", "request_headers: env PATH; env HOME", json!({ "environment": ["PATH"] })),
        filter("one", "request_headers: env PATH", json!({})),
    ];
    let gateway = gateway(&filters, &up, &other);
    assert_eq!(get(gateway.address("web"), "/x").await.status, 200);
    gateway.wait_for_log("stream1 delete [] plugin=\"puppet\" filter=\"one\"");
    let log = gateway.log();
    let said = |what: &str, filter: &str| {
        log.lines().any(|line| line.contains(what) && line.contains(&format!("filter=\"{filter}\"")))
    };
    assert!(said(&format!("env PATH Some({path:?})"), "granted"), "{log}");
    assert!(said("env HOME None", "granted") && said("env PATH None", "one"), "{log}");
}

#[tokio::test]
async fn filters_of_one_vm_id_with_different_grants_do_not_lend_them_to_each_other() {
    let (up, other) = (mirror().await, mirror().await);
    // It acts in the name of the root context of the filter behind it, which may call.
    let script = r#"request_headers: proxy_set_effective_context 2; proxy_http_call other [:method=GET|:path=/|:authority=o] "" [] 9"#;
    let mut filters =
        [filter("one", script, json!({})), filter("granted", "", json!({ "clusters": ["other"] }))];
    filters.iter_mut().for_each(|filter| filter["vm_id"] = "same".into());
    let gateway = gateway(&filters, &up, &other);
    assert_eq!(get(gateway.address("web"), "/x").await.status, 200);
    assert_eq!(results(&gateway, 1, "request_headers").last().map(String::as_str), Some("2"));
    assert_eq!(denied(&gateway, "clusters").await, 1);
}

/// A module, of an SDK that does not write one, with a section that says what it asks for.
fn asking(section: &str) -> Vec<u8> {
    let mut module = weir_tests::guests::wasm("official-headers");
    let name = "weir.plugin";
    let len = u8::try_from(1 + name.len() + section.len()).expect("a short section");
    assert!(len < 128, "a length of one byte");
    module.extend_from_slice(&[0, len, u8::try_from(name.len()).expect("short")]);
    module.extend_from_slice(name.as_bytes());
    module.extend_from_slice(section.as_bytes());
    module
}

#[test]
fn what_a_plugin_asks_for_is_shown_and_grants_nothing() {
    let asks = r#"{"grants":{"clusters":["up","b"],"headers":"read","body":"none"}}"#;
    let config = "listeners: [ { name: web, address: \"127.0.0.1:0\", http: { routes: [ { cluster: up } ], filters: [ \
                    { plugin: asking, grants: { clusters: [up], headers: none } }, { plugin: broken } ] } } ]\n\
                  clusters: [ { name: up, endpoints: [\"127.0.0.1:1\"] } ]\n";
    let broken = asking(r#"{"grants":{"cluster":[]}}"#);
    let setup =
        Setup::new().plugin_bytes("asking", &asking(asks)).plugin_bytes("broken", &broken).config(config);
    let path = setup.write_config();
    let run = |args: &[&str]| {
        let output =
            std::process::Command::new(weir_tests::guests::weir()).args(args).output().expect("weir starts");
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).expect("text"))
    };
    let (good, report) = run(&["check", "--config", path.to_str().expect("a plain path")]);
    assert!(good, "a warning is no error: {report}");
    let note = "filter `asking` is not granted what plugin `asking` asks for; if it is to have it: grants: { clusters: [b], headers: read }";
    assert!(report.contains(note), "{report}");
    assert!(
        report.contains("plugin `broken`: its section `weir.plugin` cannot be read: unknown field `cluster`"),
        "{report}"
    );
    let file = setup.folder().join("plugins/asking.wasm");
    let (good, report) = run(&["plugin", "inspect", "--json", file.to_str().expect("a plain path")]);
    let json: Json = serde_json::from_str(&report).expect("JSON");
    assert!(good);
    assert_eq!(json["asks_for"], json!(["clusters: [up, b]", "headers: read", "body: none"]));
}

#[test]
fn the_name_the_version_and_the_configuration_that_a_plugin_gives_itself_are_shown() {
    let said =
        r#"{"name":"x","version":"2","config":{"properties":{"a":{"type":"string"}},"required":["a"]}}"#;
    let setup = Setup::new().plugin_bytes("said", &asking(said));
    let file = setup.folder().join("plugins/said.wasm");
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(weir_tests::guests::weir());
        let output = command.args(["plugin", "inspect"]).args(args).arg(&file).output().expect("weir starts");
        String::from_utf8(output.stdout).expect("text")
    };
    let json: Json = serde_json::from_str(&run(&["--json"])).expect("JSON");
    assert_eq!((&json["name"], &json["version"]), (&json!("x"), &json!("2")));
    assert_eq!(json["config"]["required"], json!(["a"]));
    let shown = run(&[]);
    assert!(shown.contains("\nname            x 2\n"), "{shown}");
    assert!(shown.contains("\nconfiguration   a (mandatory, string)\n"), "{shown}");
}

#[tokio::test]
async fn a_filter_that_may_not_reply_has_its_stream_meet_on_failure_at_once_and_lives_on() {
    let (up, other) = (mirror().await, mirror().await);
    let refuse = "proxy_send_local_response 403 \"\" \"\" [] -1; return 1";
    let end = "proxy_close_stream 0; return 1";
    for act in [refuse, end] {
        for (policy, status) in [("closed", 503), ("open", 200)] {
            for phase in ["request_headers", "request_body", "response_headers"] {
                let mut filter = filter("one", &format!("{phase}: {act}"), json!({ "reply": false }));
                filter["on_failure"] = policy.into();
                filter["pause_timeout"] = "1h".into();
                let gateway = gateway(&[filter], &up, &other);
                let mut client = Client::h1(gateway.address("web")).await;
                for count in 1..3 {
                    let request = client.request("POST", "/x").body(full("asked")).expect("a request");
                    let answer = client.call(request).await.expect("an answer");
                    assert_eq!(answer.status, status, "{policy}, {phase}: {act}");
                    assert_eq!(denied(&gateway, "reply").await, count, "{policy}, {phase}: {act}");
                }
                let line = gateway.wait_for_log("denied: a plugin asked for");
                assert!(line.contains("filter=\"one\" grant=\"reply\""), "{line}");
                if policy == "closed" {
                    let entry = gateway.wait_for_access("\"path\":\"/x\"");
                    let why = (entry["filter"].as_str(), entry["reason"].as_str());
                    assert_eq!(why, (Some("one"), Some("filter_reply_denied")));
                }
                assert!(!gateway.logged("a plugin that failed is back"), "its instance is the same");
            }
        }
    }
}
