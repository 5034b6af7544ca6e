//! Properties: each attribute with its value and its type, as a filter gets it on the raw ABI.

use serde_json::{Value, json};
use weir_tests::http::{Client, get, mirror, reflect, tls_upstream, with_trailers};
use weir_tests::parity::upstreams::Answer;
use weir_tests::parity::{METADATA, NODE, Scenario, post, weir};
use weir_tests::puppet::{self, bytes, number, read, results, results_at_start};
use weir_tests::tls::{authority, certificate, client_config, server_config};
use weir_tests::upstream::Upstream;
use weir_tests::wait::soon;
use weir_tests::{Gateway, Setup};

/// What a property is expected to be.
#[derive(Debug, Clone, Copy)]
enum Is {
    /// These bytes.
    Text(&'static str),
    /// Eight bytes.
    Number(u64),
    /// Eight bytes that say some time, and not none.
    Time,
    /// One byte.
    Bool(bool),
    /// A text that begins with this, and goes on.
    Begins(&'static str),
    /// A serialised map with as many pairs.
    Map(u32),
    /// This status.
    Status(u8),
}

use Is::{Begins, Bool, Map, Number, Status, Text, Time};

impl Is {
    fn check(self, name: &str, result: &str) {
        match self {
            Text(text) => assert_eq!(bytes(result).escape_ascii().to_string(), text, "{name}"),
            Number(wanted) => assert_eq!(number(result), wanted, "{name}"),
            Time => assert_ne!(number(result), 0, "{name}"),
            Bool(yes) => assert_eq!(bytes(result), [u8::from(yes)], "{name}"),
            Begins(text) => {
                let bytes = bytes(result);
                assert!(bytes.starts_with(text.as_bytes()) && bytes.len() > text.len(), "{name}: {result}");
            }
            Map(pairs) => assert_eq!(bytes(result).get(..4), Some(&pairs.to_le_bytes()[..]), "{name}"),
            Status(status) => assert_eq!(result, status.to_string(), "{name}"),
        }
    }
}

fn names<'a>(expected: &[(&'a str, Is)]) -> Vec<&'a str> {
    expected.iter().map(|(name, _)| *name).collect()
}

fn check(expected: &[(&str, Is)], results: &[String]) {
    assert_eq!(results.len(), expected.len(), "{results:?}");
    for ((name, is), result) in expected.iter().zip(results) {
        is.check(name, result);
    }
}

/// A gateway with a puppet in front of these routes, towards this cluster with its `fields`.
fn gateway(script: &str, route: Value, upstream: &Upstream, fields: &str) -> Gateway {
    let http = json!({ "filters": [puppet::filter(script)], "routes": [route] });
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {http} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] {fields} }} ]",
        upstream.address
    );
    Setup::new().plugin("puppet").config(format!("runtime: {{ workers: 1 }}\n{config}")).start()
}

/// A text that is only known when the test runs.
fn escaped(text: &str) -> &'static str {
    text.replace('\r', "").escape_debug().to_string().leak()
}

const NOT_FOUND: Is = Status(1);
const SERIALIZATION: Is = Status(3);

#[tokio::test]
async fn every_attribute_of_an_exchange_has_its_value_and_its_type() {
    let expected = [
        ("request.path", Text("/a/b?c=d")),
        ("request.url_path", Text("/a/b")),
        ("request.query", Text("c=d")),
        ("request.host", Text("example.com")),
        ("request.scheme", Text("http")),
        ("request.method", Text("POST")),
        ("request.protocol", Text("HTTP/2")),
        ("request.referer", Text("r")),
        ("request.useragent", Text("u")),
        ("request.id", Begins("")),
        ("request.time", Time),
        ("request.duration", Time),
        ("request.size", Number(4)),
        ("request.total_size", Time),
        ("request.headers_bytes", Time),
        ("request.headers.x-many", Text("1,2")),
        ("request.headers.X-Many", Text("1,2")),
        ("request.headers.:method", Text("POST")),
        ("request.headers.host", Text("example.com")),
        ("request.headers.x-none", NOT_FOUND),
        ("request.no_such", NOT_FOUND),
        ("request", SERIALIZATION),
        ("response.code", Number(200)),
        ("response.code_details", Text("via_upstream")),
        ("response.flags", Number(0)),
        ("response.grpc_status", Number(5)),
        ("response.headers.content-type", Text("application/grpc")),
        ("response.trailers", Map(1)),
        ("response.trailers.grpc-status", Text("5")),
        ("response.size", Number(2)),
        ("response.total_size", Time),
        ("response.backend_latency", Time),
        ("source.address", Begins("127.0.0.1:")),
        ("source.port", Time),
        ("destination.address", Begins("127.0.0.1:")),
        ("destination.port", Time),
        ("connection.id", Time),
        ("connection_id", Time),
        ("connection.mtls", Bool(false)),
        ("connection.requested_server_name", Text("")),
        ("connection.tls_version", NOT_FOUND),
        ("connection.termination_details", NOT_FOUND),
        ("upstream.address", Begins("127.0.0.1:")),
        ("upstream.port", Time),
        ("upstream.local_address", Begins("127.0.0.1:")),
        ("upstream.request_attempt_count", Number(1)),
        ("upstream.cx_pool_ready_duration", Time),
        ("upstream.transport_failure_reason", Text("")),
        ("upstream.tls_version", NOT_FOUND),
        ("route_name", Text("main")),
        ("xds.route_name", Text("main")),
        ("cluster_name", Text("up")),
        ("xds.cluster_name", Text("up")),
        ("plugin_name", Text("one")),
        ("plugin_root_id", Text("one")),
        ("plugin_vm_id", Text("")),
        ("listener_direction", Number(0)),
        ("no_such", NOT_FOUND),
    ];
    let upstream = weir_tests::http::upstream(async |_| {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "5".parse().expect("a value"));
        let mut response = http::Response::new(with_trailers("ok", trailers));
        response.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
        response
    })
    .await;
    let script = read("log", &names(&expected));
    let route = json!({ "name": "main", "cluster": "up" });
    let gateway = gateway(&script, route, &upstream, ", protocol: http2");
    let mut client = Client::h2(gateway.address("web")).await;
    let request = client.request("POST", "/a/b?c=d").header("x-many", "1").header("x-many", "2");
    let request = request.header("referer", "r").header("user-agent", "u").header("content-length", "4");
    let answer = client.call(request.body(weir_tests::http::full("body")).expect("a request")).await;
    assert_eq!(answer.expect("an answer").status, 200);
    check(&expected, &results(&gateway, 1, "log ["));
}

#[tokio::test]
async fn what_is_not_known_yet_is_not_found_and_counters_begin_at_zero() {
    let expected = [
        ("response.code", NOT_FOUND),
        ("response.code_details", NOT_FOUND),
        ("response.flags", Number(0)),
        ("response.grpc_status", NOT_FOUND),
        ("response.headers", Map(0)),
        ("response.headers.x", NOT_FOUND),
        ("response.size", Number(0)),
        ("response.backend_latency", NOT_FOUND),
        ("response", SERIALIZATION),
        ("upstream.address", NOT_FOUND),
        ("upstream.transport_failure_reason", NOT_FOUND),
        ("upstream.request_attempt_count", Number(0)),
        ("upstream", SERIALIZATION),
        ("xds.cluster_name", Text("up")),
        ("xds.upstream_host_metadata", NOT_FOUND),
    ];
    let mirror = mirror().await;
    let script = read("request_headers", &names(&expected));
    let gateway = gateway(&script, json!({ "cluster": "up" }), &mirror, "");
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    check(&expected, &results(&gateway, 1, "request_headers "));
}

#[tokio::test]
async fn node_and_metadata_are_read_as_they_are_configured_also_while_the_plugin_starts() {
    let expected = [
        ("node.id", Text("node-1")),
        ("node.cluster", Text("nodes")),
        ("node.metadata.ENV", Text("test")),
        ("node.metadata.ports", Map(2)),
        ("node.metadata.ports.1", Text(r"\x00\x00\x00\x00\x00\xb0{@")),
        ("node.metadata.ports.2", NOT_FOUND),
        ("node.locality.sub_zone", Text("s")),
        ("node.locality", Text(r"\n\x01r\x12\x01z\x1a\x01s")),
        ("node", Begins("\n\x06node-1\x12\x05nodes")),
        ("xds.node.id", Text("node-1")),
        ("node.no_such", NOT_FOUND),
        ("listener_metadata.filter_metadata.ns.text", Text("t")),
        ("xds.listener_metadata.filter_metadata.ns.yes", Bool(true)),
        ("listener_metadata.filter_metadata.ns.inner", Map(1)),
        ("listener_metadata.filter_metadata.ns.null", SERIALIZATION),
        ("listener_metadata.filter_metadata.none", NOT_FOUND),
        ("listener_metadata", Begins("\n")),
    ];
    let of_the_stream = [
        ("route_metadata.filter_metadata.ns.number", Text(r"\x00\x00\x00\x00\x00\x00\xf8?")),
        ("xds.route_metadata.filter_metadata.ns.list.1", Text("b")),
        ("cluster_metadata.filter_metadata.ns.inner.k", Text("v")),
        ("xds.cluster_metadata.filter_metadata.ns.text", Text("t")),
        ("metadata", Text("")),
        ("metadata.filter_metadata", Map(0)),
        ("metadata.filter_metadata.ns", NOT_FOUND),
    ];
    let mirror = mirror().await;
    let all: Vec<_> = expected.iter().chain(&of_the_stream).copied().collect();
    let script = [read("configure", &names(&expected)), read("response_headers", &names(&all))].join("\n");
    let http = json!({
        "filters": [puppet::filter(&script)],
        "routes": [{ "cluster": "up", "metadata": METADATA.clone() }],
    });
    let listener =
        json!({ "name": "web", "address": "127.0.0.1:0", "http": http, "metadata": METADATA.clone() });
    let address = mirror.address.to_string();
    let cluster = json!({ "name": "up", "endpoints": [address], "metadata": METADATA.clone() });
    let config = format!("node: {}\nlisteners: [ {listener} ]\nclusters: [ {cluster} ]", NODE.clone());
    let gateway = Setup::new().plugin("puppet").config(config).start();
    check(&expected, &results_at_start(&gateway));
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    check(&all, &results(&gateway, 1, "response_headers "));
}

#[tokio::test]
async fn both_ends_of_tls_are_known_on_connections_that_are_used_again_too() {
    let client = certificate(&["spiffe://mesh.internal/client", "client.internal"]);
    let own = certificate(&["spiffe://mesh.internal/gateway", "a.example", "example.com"]);
    let server = certificate(&["spiffe://mesh.internal/api", "api.internal"]);
    let expected = [
        ("connection.mtls", Bool(true)),
        ("connection.requested_server_name", Text("a.example")),
        ("connection.tls_version", Text("TLSv1.3")),
        ("connection.uri_san_peer_certificate", Text("spiffe://mesh.internal/client")),
        ("connection.dns_san_peer_certificate", Text("client.internal")),
        ("connection.subject_peer_certificate", Begins("CN=")),
        ("connection.sha256_peer_certificate_digest", Begins("")),
        ("connection.peer_certificate", Text(escaped(&client.cert))),
        ("connection.uri_san_local_certificate", Text("spiffe://mesh.internal/gateway")),
        ("connection.dns_san_local_certificate", Text("a.example")),
        ("connection.subject_local_certificate", Begins("CN=")),
        ("upstream.tls_version", Text("TLSv1.3")),
        ("upstream.uri_san_peer_certificate", Text("spiffe://mesh.internal/api")),
        ("upstream.dns_san_peer_certificate", Text("api.internal")),
        ("upstream.subject_peer_certificate", Begins("CN=")),
        ("upstream.sha256_peer_certificate_digest", Begins("")),
        ("upstream.peer_certificate", Text(escaped(&server.cert))),
        ("upstream.num_endpoints", Number(1)),
        ("upstream.locality", Text("")),
        ("upstream.locality.zone", Text("")),
        ("upstream.uri_san_local_certificate", Text("spiffe://mesh.internal/gateway")),
        ("upstream.dns_san_local_certificate", Text("a.example")),
        ("upstream.subject_local_certificate", Begins("CN=")),
        ("upstream.local_address", Begins("127.0.0.1:")),
    ];
    for protocol in ["http/1.1", "h2"] {
        let upstream = tls_upstream(server_config(&server, true, &[protocol]), reflect).await;
        let http = json!({
            "filters": [puppet::filter(&read("log", &names(&expected)))],
            "routes": [{ "cluster": "up" }],
        });
        let config = format!(
            "runtime: {{ workers: 1 }}\n\
             listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {http}, tls: {{ mode: terminate, \
               certificates: [ {{ cert: own.pem, key: own.key }} ], client_ca: ca.pem, client_certificate: required }} }} ]\n\
             clusters: [ {{ name: up, endpoints: [\"{}\"], tls: {{ ca: ca.pem, sni: api.internal, cert: own.pem, key: own.key }} }} ]",
            upstream.address
        );
        let setup = Setup::new().plugin("puppet").file("ca.pem", authority().pem());
        let setup = setup.file("own.pem", &own.cert).file("own.key", &own.key);
        let gateway = setup.config(config).start();
        for stream in 1..=2 {
            let config = client_config(Some(&client), &["http/1.1"]);
            let mut client = Client::tls(gateway.address("web"), "a.example", config).await.expect("TLS");
            assert_eq!(client.get("/").await.status, 200);
            check(&expected, &results(&gateway, stream, "log ["));
        }
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_has_no_subject_and_no_names() {
    let own = certificate(&["a.example"]);
    let expected = [
        ("connection.mtls", Bool(false)),
        ("connection.tls_version", Text("TLSv1.3")),
        ("connection.subject_peer_certificate", Text("")),
        ("connection.uri_san_peer_certificate", NOT_FOUND),
        ("connection.sha256_peer_certificate_digest", NOT_FOUND),
        ("connection.peer_certificate", NOT_FOUND),
    ];
    let http = json!({
        "filters": [puppet::filter(&read("log", &names(&expected)))],
        "routes": [{ "respond": { "status": 200 } }],
    });
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {http}, tls: {{ mode: terminate, \
           certificates: [ {{ cert: own.pem, key: own.key }} ] }} }} ]"
    );
    let setup = Setup::new().plugin("puppet").file("own.pem", own.cert).file("own.key", own.key);
    let gateway = setup.config(config).start();
    let config = client_config(None, &["http/1.1"]);
    let mut client = Client::tls(gateway.address("web"), "a.example", config).await.expect("TLS");
    assert_eq!(client.get("/").await.status, 200);
    check(&expected, &results(&gateway, 1, "log ["));
}

#[tokio::test]
async fn what_went_wrong_is_told_in_envoys_flags() {
    let names =
        ["response.flags", "response.code", "response.code_details", "upstream.transport_failure_reason"];
    let script = read("log", &names);
    let (nowhere, other) = (Upstream::nowhere().await, Upstream::nowhere().await);
    let (silent, _asked) = weir_tests::http::asking().await;
    let routes = json!([
        { "match": { "path": "/refused" }, "cluster": "nowhere" },
        { "match": { "path": "/refused-twice" }, "cluster": "two" },
        { "match": { "path": "/refused-often" }, "cluster": "stingy" },
        { "match": { "path": "/empty" }, "cluster": "empty" },
        { "match": { "path": "/slow" }, "cluster": "silent", "timeout": "50ms" },
        { "match": { "path": "/fine" }, "respond": { "status": 204 } },
    ]);
    let http = json!({ "filters": [puppet::filter(&script)], "routes": routes });
    let config = format!(
        "runtime: {{ workers: 1 }}\nlisteners: [ {{ name: web, address: \"127.0.0.1:0\", http: {http} }} ]\n\
         clusters: [ {{ name: nowhere, endpoints: [\"{nowhere}\"] }}, {{ name: two, endpoints: [\"{nowhere}\", \"{other}\"] }}, \
           {{ name: stingy, endpoints: [\"{nowhere}\", \"{other}\"], retry_budget: \"0%\" }}, {{ name: empty, endpoints: [] }}, \
           {{ name: silent, endpoints: [\"{}\"] }} ]",
        silent.address
    );
    let gateway = Setup::new().plugin("puppet").config(config).start();
    let cases = [
        ("/refused", 0x20, 503, "connect_failure"),
        ("/refused-twice", 0x8020, 503, "connect_failure"),
        ("/refused-often", 0xa0, 503, "connect_failure"),
        ("/empty", 0x2, 503, "no_endpoints"),
        ("/slow", 0x4, 504, "upstream_timeout"),
        ("/none", 0x100, 404, "no_route"),
        ("/fine", 0, 204, "direct_response"),
    ];
    for (stream, (path, flags, status, details)) in (1..).zip(cases) {
        assert_eq!(get(gateway.address("web"), path).await.status, status, "{path}");
        let told = results(&gateway, stream, "log [");
        assert_eq!(told.len(), names.len(), "{told:?}");
        assert_eq!((number(&told[0]), number(&told[1])), (flags, u64::from(status)), "{path}");
        assert_eq!(bytes(&told[2]), details.as_bytes(), "{path}");
        if path.starts_with("/refused") {
            assert!(!bytes(&told[3]).is_empty(), "{told:?}");
        }
    }
}

#[tokio::test]
async fn a_property_of_a_guests_own_hides_nothing_and_has_bounds() {
    let mirror = mirror().await;
    let script = r#"request_headers: proxy_set_property own one; proxy_get_property own; proxy_get_property "own\0"; proxy_get_property "filter_state\0wasm.own"; proxy_set_property "request\0path" /evil; proxy_get_property "request\0path"; proxy_set_property "response\0code" 200; proxy_get_property "response\0code"; proxy_set_property large @0:1048577; proxy_get_property large; proxy_set_property large @0:1040000; proxy_set_property more @0:10000; proxy_set_property large ""; proxy_set_property more @0:10000
        configure: proxy_set_property own x"#;
    let gateway = gateway(script, json!({ "cluster": "up" }), &mirror, "");
    assert_eq!(results_at_start(&gateway), ["1"], "a plugin as a whole has no properties");
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    let one = r#"0 "one""#;
    let expected = ["0", one, one, one, "0", r#"0 "/""#, "0", "1", "10", "1", "0", "10", "0", "0"];
    assert_eq!(results(&gateway, 1, "request_headers "), expected);
}

#[tokio::test]
async fn hostile_paths_are_answered_and_nothing_more() {
    let mirror = mirror().await;
    let long = "a\\0".repeat(5000);
    let script = format!(
        r#"request_headers: proxy_get_property ""; proxy_get_property "\0"; proxy_get_property "\0\0"; proxy_get_property "\xff\xfe"; proxy_get_property "request\0\xff"; proxy_get_property "request\0headers\0\r\n"; proxy_get_property "request\0headers\0:no"; proxy_get_property "node\0metadata\0"; proxy_get_property "{long}"; proxy_get_property @0x7fff0000:9; proxy_get_property @0xfffffff0:0xffff; proxy_get_property "request\0path" @0x7fff0000:0x7fff0000; proxy_set_property @0x7fff0000:9 x"#
    );
    let gateway = gateway(&script, json!({ "cluster": "up" }), &mirror, "");
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    let empty = r#"0 "\x00\x00\x00\x00""#;
    let expected = ["3", "1", "1", "1", "1", "1", "1", empty, "1", "6", "6", "6", "6"];
    assert_eq!(results(&gateway, 1, "request_headers "), expected);
}

#[tokio::test]
async fn a_connection_has_properties_before_any_byte_is_relayed() {
    let names = [
        ("source.address", Begins("127.0.0.1:")),
        ("destination.port", Time),
        ("connection.mtls", Bool(false)),
        ("request.time", Time),
        ("request.path", NOT_FOUND),
        ("request", SERIALIZATION),
        ("node.id", Text("node-1")),
        ("listener_metadata.filter_metadata.ns.text", Text("t")),
    ];
    let mut scenario = Scenario::new("unused", &read("new_connection", &self::names(&names)));
    scenario.tcp = true;
    let scenario = scenario.send(post("", &["ping"])).answer(Answer::body(&["pong"]));
    let log = soon("the end of the connection", weir::run(&scenario)).await.log;
    let results: Vec<String> = log
        .iter()
        .filter_map(|line| line.strip_prefix("one: stream1 get_property = ").map(str::to_owned))
        .collect();
    check(&names, &results);
}
