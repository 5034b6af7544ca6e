//! Foreign functions, as a filter calls them on the raw ABI: what they answer, and what they cannot be made to do.

use serde_json::{Value, json};
use weir_tests::http::{get, mirror};
use weir_tests::puppet::{self, bytes, results, results_at_start};
use weir_tests::upstream::Upstream;
use weir_tests::{Gateway, Setup};

/// A gateway with a puppet; `limits` are those of its filter.
fn gateway(script: &str, limits: Value, upstream: &Upstream) -> Gateway {
    let mut filter = puppet::filter(script);
    for (name, value) in limits.as_object().expect("a mapping") {
        filter[name] = value.clone();
    }
    let http = json!({ "filters": [filter], "routes": [{ "name": "main", "cluster": "up" }] });
    let config = format!(
        "runtime: {{ workers: 1 }}\nlisteners: [ {{ name: web, address: \"127.0.0.1:0\", http: {http} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    );
    Setup::new().plugin("puppet").config(config).start()
}

/// A call of a foreign function with these bytes.
fn call(name: &str, argument: &[u8]) -> String {
    let argument: String = argument.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("proxy_call_foreign_function {name} \"{argument}\"")
}

/// Creates expressions while the plugin starts, and evaluates them in a stream.
fn evaluating(expressions: &[&str]) -> String {
    let create: Vec<_> = expressions.iter().map(|text| call("expr_create", text.as_bytes())).collect();
    let ids = 0..u32::try_from(expressions.len()).expect("a few");
    let evaluate: Vec<_> = ids.map(|id| call("expr_evaluate", &id.to_le_bytes())).collect();
    format!("configure: {}\nrequest_headers: {}", create.join("; "), evaluate.join("; "))
}

/// `len` zeros in zlib's format, in 13 bits for each 258 of them (RFC 1951: fixed codes, distance 1).
fn bomb(len: usize) -> Vec<u8> {
    let mut bits: Vec<bool> = Vec::new();
    let mut code = |value: u32, width: u32| bits.extend((0..width).rev().map(|bit| value >> bit & 1 == 1));
    // The last block, of fixed codes; then one zero by itself.
    code(0b1, 1);
    code(0b10, 2);
    code(0b0011_0000, 8);
    for _ in 0..len / 258 {
        code(0b1100_0101, 8);
        code(0, 5);
    }
    code(0, 7);
    let mut out = vec![0x78, 0x9c];
    let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
    out.extend(bits.chunks(8).map(byte));
    // Adler-32 of zeros: the low half stays 1, the high half counts them.
    let adler = ((len / 258 * 258 + 1) % 65521) as u32;
    out.extend((adler << 16 | 1).to_be_bytes());
    out
}

#[tokio::test]
async fn compression_is_zlibs_and_what_is_not_zlib_is_refused() {
    let mirror = mirror().await;
    let hello = b"x\x9c\xcbH\xcd\xc9\xc9W\xc8@'\x01h\x03\x08\xb1";
    let calls = [
        call("compress", b"hello hello hello hello"),
        call("uncompress", hello),
        // The puppet logs what it gets, and a line of the log may have 64 KiB.
        call("uncompress", &bomb(12_000)),
        call("compress", b""),
        call("uncompress", b"no zlib"),
        call("uncompress", &hello[..8]),
        call("uncompress", b""),
        // Wrong at the end: the checksum.
        call("uncompress", b"x\x9c\xcbH\xcd\xc9\xc9W\xc8@'\x01h\x03\x08\xb2"),
        "proxy_call_foreign_function compress x @0:0".to_owned(),
        "proxy_call_foreign_function compress @0x7fff0000:9".to_owned(),
        "proxy_call_foreign_function compress x @0x7fff0000:0x7fff0000".to_owned(),
    ];
    let script = format!("request_headers: {}", calls.join("; "));
    let gateway = gateway(&script, json!({ "cpu": "10s" }), &mirror);
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    let results = results(&gateway, 1, "request_headers ");
    assert_eq!(bytes(&results[0]), hello);
    assert_eq!(bytes(&results[1]), b"hello hello hello hello");
    assert!(bytes(&results[2]) == vec![0; 12_000 / 258 * 258 + 1], "{}", results[2].len());
    assert_eq!(bytes(&results[3]), b"x\x9c\x03\x00\x00\x00\x00\x01");
    assert_eq!(results[4..], ["3", "3", "3", "3", "0", "6", "6"]);
}

#[tokio::test]
async fn a_compressed_bomb_ends_at_the_guests_memory_limit_and_at_its_cpu_time() {
    let mirror = mirror().await;
    let script = format!("request_headers: {}", call("uncompress", &bomb(5 << 20)));
    // First there is time enough, then memory enough.
    for limits in [json!({ "cpu": "10s", "memory": "4MiB" }), json!({ "cpu": "1ms", "memory": "64MiB" })] {
        let gateway = gateway(&script, limits.clone(), &mirror);
        let _ = get(gateway.address("web"), "/").await;
        assert_eq!(results(&gateway, 1, "request_headers "), ["10"], "{limits}");
        assert!(gateway.resident() < 400 << 20, "{limits}: {}", gateway.resident());
    }
}

#[tokio::test]
async fn expressions_have_the_values_that_envoy_gives_them() {
    let cases: [(&str, &str); 31] = [
        ("request.path == '/x?y' && request.method == 'GET'", r#"0 "\x01""#),
        ("request.path", r#"0 "/x?y""#),
        ("request.headers['host']", "10"),
        ("request.headers[':authority']", r#"0 "example.com""#),
        ("'x-none' in request.headers", r#"0 "\x00""#),
        ("has(request.path)", r#"0 "\x01""#),
        ("has(request.no_such)", r#"0 "\x00""#),
        ("request.no_such", "10"),
        ("no_such", "10"),
        ("no_such || request.method == 'GET'", r#"0 "\x01""#),
        ("1 + 2", r#"0 "\x03\x00\x00\x00\x00\x00\x00\x00""#),
        ("-1", r#"0 "\xff\xff\xff\xff\xff\xff\xff\xff""#),
        ("2u", r#"0 "\x02\x00\x00\x00\x00\x00\x00\x00""#),
        ("1.5", r#"0 "\x00\x00\x00\x00\x00\x00\xf8?""#),
        ("b'ab'", r#"0 "ab""#),
        ("null", "3"),
        ("['a', 'b'][1]", r#"0 "b""#),
        ("['a']", r#"0 "\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00a\x00\x00""#),
        ("{'k': 'v'}", r#"0 "\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00k\x00v\x00""#),
        ("{}", r#"0 "\x00\x00\x00\x00""#),
        ("1 / 0", "10"),
        ("9223372036854775807 + 1", "10"),
        ("'a' + 'b'", r#"0 "ab""#),
        ("1 + 'b'", "10"),
        ("request.url_path.startsWith('/')", r#"0 "\x01""#),
        ("request.path.matches('^/[a-z][?]y$')", r#"0 "\x01""#),
        ("size(request.path)", r#"0 "\x04\x00\x00\x00\x00\x00\x00\x00""#),
        ("xds.route_name + '/' + plugin_name", r#"0 "main/one""#),
        ("source.port > 0 && source.address.startsWith('127.0.0.1:')", r#"0 "\x01""#),
        ("request.time > 0 && connection.mtls == false", r#"0 "\x01""#),
        ("no_such_function(1)", "10"),
    ];
    let mirror = mirror().await;
    let script = evaluating(&cases.map(|(text, _)| text));
    let gateway = gateway(&script, json!({ "cpu": "10s" }), &mirror);
    let created = results_at_start(&gateway);
    assert!(created.iter().all(|result| result.starts_with("0 ")), "{created:?}");
    assert_eq!(bytes(&created[2]), 2_u32.to_le_bytes());
    assert_eq!(get(gateway.address("web"), "/x?y").await.status, 200);
    let results = results(&gateway, 1, "request_headers ");
    assert_eq!(results.len(), cases.len());
    for ((text, expected), result) in cases.iter().zip(&results) {
        assert_eq!(result, expected, "{text}");
    }
}

#[tokio::test]
async fn expressions_are_known_by_their_id_until_they_are_deleted() {
    let mirror = mirror().await;
    let id = |id: u32| id.to_le_bytes();
    let calls = [
        call("expr_create", b"'one'"),
        call("expr_create", b"syntax error ("),
        call("expr_create", b"\xff"),
        call("expr_create", b""),
        call("expr_create", b"'two'"),
        call("expr_evaluate", &id(1)),
        call("expr_evaluate", &id(7)),
        call("expr_evaluate", b"\0"),
        call("expr_delete", &id(1)),
        call("expr_evaluate", &id(1)),
        call("expr_delete", &id(1)),
        call("expr_delete", b"\0"),
        call("expr_evaluate", &id(0)),
    ];
    let gateway = gateway(&format!("configure: {}", calls.join("; ")), json!({}), &mirror);
    let (zero, one) = (r#"0 "\x00\x00\x00\x00""#, r#"0 "\x01\x00\x00\x00""#);
    let expected =
        [zero, "2", "2", "2", one, r#"0 "two""#, "1", "2", r#"0 """#, "1", r#"0 """#, "2", r#"0 "one""#];
    assert_eq!(results_at_start(&gateway), expected);
}

#[tokio::test]
async fn an_expression_that_could_cost_too_much_is_refused_and_the_gateway_goes_on() {
    let nested = |depth: usize| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
    let chain = |parts: usize, with: &str| vec!["1"; parts].join(with);
    let refused = [
        nested(30),
        nested(10_000),
        "(".repeat(10_000),
        "[".repeat(10_000),
        "!".repeat(10_000) + "a",
        chain(200, "+"),
        chain(10_000, "+"),
        chain(10_000, "&&"),
        "a.".repeat(10_000) + "b",
        "a ? b : ".repeat(1000) + "c",
        "[1,2].map(a,[1,2].map(b,[1,2].map(c,[1,2].map(d,[1,2].map(e,[1,2].map(f,f))))))".to_owned(),
        "request.headers.all(name, name != 'x')".to_owned(),
        "'a'.matches('(((a{100}){100}){100})')".to_owned(),
        "'a'.matches(request.path)".to_owned(),
        format!("'{}'", "x".repeat(5000)),
        "'''".to_owned() + &"(".repeat(2000),
    ];
    let kept = [nested(20), chain(60, "+"), vec!["1 == 1"; 60].join(" && ")];
    let calls: Vec<_> =
        refused.iter().chain(&kept).map(|text| call("expr_create", text.as_bytes())).collect();
    // The first that is kept has the id 0.
    let evaluate: Vec<_> = (0..3_u32).map(|id| call("expr_evaluate", &id.to_le_bytes())).collect();
    let script = format!("configure: {}\nrequest_headers: {}", calls.join("; "), evaluate.join("; "));
    let mirror = mirror().await;
    let gateway = gateway(&script, json!({ "cpu": "10s" }), &mirror);
    let created = results_at_start(&gateway);
    for (text, result) in refused.iter().zip(&created) {
        assert_eq!(result, "2", "{}", &text[..text.len().min(60)]);
    }
    assert_eq!(created.len(), refused.len() + kept.len());
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    let results = results(&gateway, 1, "request_headers ");
    let (one, sixty) = (1_u64.to_le_bytes(), 60_u64.to_le_bytes());
    assert_eq!(results.iter().map(|result| bytes(result)).collect::<Vec<_>>(), [&one[..], &sixty, &[1]]);
}

#[tokio::test]
async fn a_pattern_that_takes_long_ends_with_the_calls_cpu_time() {
    // Every letter doubles what a match has to remember. The names make each pattern another one.
    let worst = |name: char| format!("own.matches('[ab]*a[ab]{{60}}{name}')");
    let text: Vec<String> = ('c'..='p').map(worst).collect();
    let mut seed = 1_u64;
    let own: String = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if seed >> 40 & 1 == 1 { 'a' } else { 'b' }
    })
    .take(4000)
    .collect();
    let script = format!(
        "configure: {}; {}\nrequest_headers: proxy_set_property own {own}; {}",
        call("declare_property", b"\x0a\x03own\x18\x01"),
        call("expr_create", text.join(" || ").as_bytes()),
        call("expr_evaluate", &[0; 4])
    );
    let mirror = mirror().await;
    for (cpu, expected) in [("30s", r#"0 "\x00""#), ("1ms", "10")] {
        let gateway = gateway(&script, json!({ "cpu": cpu }), &mirror);
        let _ = get(gateway.address("web"), "/").await;
        assert_eq!(results(&gateway, 1, "request_headers "), ["0", expected], "{cpu}");
    }
}

#[tokio::test]
async fn a_plugin_has_so_many_expressions_and_looks_at_so_much_and_no_more() {
    let mirror = mirror().await;
    let mut calls = vec![call("expr_create", b"size(own)"), call("expr_create", b"size(own) + size(own)")];
    calls.extend(std::iter::repeat_n(call("expr_create", b"1"), 1023));
    let evaluate = [call("expr_evaluate", &[0; 4]), call("expr_evaluate", &[1, 0, 0, 0])];
    let script = format!(
        "configure: {}\nrequest_headers: proxy_set_property own @0:100000; {}; proxy_set_property own @0:200000; {}",
        calls.join("; "),
        evaluate.join("; "),
        call("expr_evaluate", &[0; 4])
    );
    let gateway = gateway(&script, json!({ "cpu": "10s" }), &mirror);
    let created = results_at_start(&gateway);
    assert_eq!((created.len(), &*created[1023], &*created[1024]), (1025, r#"0 "\xff\x03\x00\x00""#, "10"));
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    let size = format!("0 \"{}\"", 100_000_u64.to_le_bytes().escape_ascii());
    assert_eq!(results(&gateway, 1, "request_headers "), ["0", &size, "10", "0", "10"]);
}

#[tokio::test]
async fn a_declared_property_is_read_only_or_a_text_as_it_says() {
    let mirror = mirror().await;
    // DeclarePropertyArguments: name 1, readonly 2, type 3 (1: string).
    let declare = [
        call("declare_property", b"\x0a\x03own\x10\x01\x18\x01"),
        call("declare_property", b"\x0a\x03own"),
        call("declare_property", b"\xff"),
        call("expr_create", b"own == 'one'"),
        call("expr_create", b"other == b'one'"),
        call("expr_create", b"filter_state['wasm.own'] == 'one'"),
    ];
    let evaluate: Vec<_> = (0..3_u32).map(|id| call("expr_evaluate", &id.to_le_bytes())).collect();
    let script = format!(
        "configure: {}\nrequest_headers: proxy_set_property own one; proxy_set_property own two; \
         proxy_get_property own; proxy_set_property other one; {}",
        declare.join("; "),
        evaluate.join("; ")
    );
    let gateway = gateway(&script, json!({ "cpu": "10s" }), &mirror);
    assert_eq!(results_at_start(&gateway)[..3], [r#"0 """#, "2", "2"]);
    let yes = r#"0 "\x01""#;
    // Each stream has its own.
    for stream in 1..=2 {
        assert_eq!(get(gateway.address("web"), "/").await.status, 200);
        let results = results(&gateway, stream, "request_headers ");
        assert_eq!(results, ["0", "2", r#"0 "one""#, "0", yes, yes, yes]);
    }
}

#[tokio::test]
async fn filter_state_takes_the_keys_that_envoy_has_and_values_of_their_form() {
    let set = |key: &str, value: &str| {
        let field = |tag: u8, text: &str| {
            [&[tag, u8::try_from(text.len()).expect("short")], text.as_bytes()].concat()
        };
        call("set_envoy_filter_state", &[field(0x0a, key), field(0x12, value)].concat())
    };
    let calls = [
        set("envoy.upstream.dynamic_host", "h"),
        "proxy_get_property \"filter_state\\0envoy.upstream.dynamic_host\"".to_owned(),
        set("envoy.upstream.dynamic_port", "80"),
        set("envoy.upstream.dynamic_port", "x"),
        set("envoy.network.ip", "1.2.3.4"),
        set("envoy.network.ip", "1.2.3.4:80"),
        set("envoy.filters.listener.original_dst.local_ip", "1.2.3.4:80"),
        set("my.own.key", "x"),
        call("set_envoy_filter_state", b"\xff"),
        call("clear_route_cache", b""),
        call("no_such", b""),
        call("\\xff", b""),
    ];
    let mirror = mirror().await;
    let outside = [set("envoy.upstream.dynamic_host", "h"), call("clear_route_cache", b"")];
    let script = format!("configure: {}\nrequest_headers: {}", outside.join("; "), calls.join("; "));
    let gateway = gateway(&script, json!({}), &mirror);
    let done = r#"0 """#;
    assert_eq!(results_at_start(&gateway), ["1", done]);
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    let expected = [done, r#"0 "h""#, done, "2", done, "2", done, "1", "2", done, "1", "1"];
    assert_eq!(results(&gateway, 1, "request_headers "), expected);
}
