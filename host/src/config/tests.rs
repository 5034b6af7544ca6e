//! Claims about whole configurations.

use super::*;
use crate::config::cluster::{Endpoint, Protocol};
use crate::config::matcher::{HostPattern, PathMatch};
use crate::config::route::FilterOverride;

fn parse(text: &str) -> Result<Config, Vec<String>> {
    Config::parse(Path::new("gateway.yaml"), text)
        .map_err(|problems| problems.0.iter().map(ToString::to_string).collect())
}

const EXAMPLE: &str = r#"
admin: { address: 127.0.0.1:9901 }
runtime: { workers: 2 }
plugins:
  directory: plugins
  defaults: { cpu: 2ms, memory: 64MiB, on_failure: closed }
listeners:
  - name: mesh-gateway
    address: 127.0.0.1:15443
    tls: { mode: passthrough }
    filters:
      - plugin: sni-router
        config: { template: "{env}.{app}.meshproxy.internal", cluster: "{app}-{env}" }
  - name: edge
    address: 127.0.0.1:8443
    tls:
      mode: terminate
      certificates: [ { cert: tls/edge.pem, key: tls/edge.key } ]
      client_ca: tls/ca.pem
      client_certificate: required
    http:
      max_header_bytes: 16KiB
      filters:
        - plugin: authz
          config: { rules: [ { allow: ["spiffe://mesh.internal/orders"], methods: [GET], path_prefix: /v1 } ] }
        - plugin: header-rewrite
          on_failure: open
          config: { request: { set: { x-team: payments }, remove: [x-debug] } }
      routes:
        - match: { host: "api.example.com", path_prefix: /v1 }
          cluster: api
          timeout: 5s
          filters: { authz: off, header-rewrite: { config: { request: {} } } }
        - match: { host: "*.example.com", path_regex: "/a+", methods: [GET], headers: { x-env: staging } }
          clusters: [ { name: api, weight: 9 }, { name: other, weight: 1 } ]
        - match: { path_prefix: / }
          respond: { status: 404, body: "no route\n" }
  - name: plain
    address: 127.0.0.1:8080
    tcp: { cluster: api }
clusters:
  - name: api
    endpoints: [ "127.0.0.1:9001", "127.0.0.1:9002" ]
    balance: round_robin
    connect_timeout: 1s
    tls: { ca: tls/ca.pem, cert: tls/edge.pem, key: tls/edge.key, sni: api.internal, verify_identity: ["spiffe://mesh.internal/api"] }
  - { name: other, endpoints: ["localhost:9003"], protocol: http2 }
"#;

#[test]
fn the_documented_example_is_read_whole() {
    let config = parse(EXAMPLE).expect("the example is right").sections;
    assert_eq!(config.listeners.len(), 3);
    assert_eq!(config.drain_timeout, Duration::from_secs(5));
    let Service::Http(http) = &config.listeners[1].service else { panic!("edge is HTTP") };
    assert_eq!(http.limits.max_header_bytes.0, 16 * 1024);
    assert_eq!(http.routes[0].host, Some(HostPattern::Exact("api.example.com".into())));
    assert_eq!(http.routes[0].timeout, Some(Duration::from_secs(5)));
    assert_eq!(http.routes[0].filters["authz"].value, FilterOverride::Off);
    assert!(matches!(http.routes[1].path, PathMatch::Regex(_)));
    assert_eq!(http.routes[2].timeout, Some(Duration::from_secs(15)));
    assert_eq!(config.clusters[1].endpoints, [Endpoint::Dns { name: "localhost".into(), port: 9003 }]);
    assert_eq!(config.clusters[1].protocol, Protocol::Http2);
    let tls = config.clusters[0].tls.as_ref().expect("TLS");
    assert_eq!(tls.ca.value, Path::new("tls/ca.pem"));
}

#[test]
fn json_is_accepted_and_off_may_be_a_boolean() {
    let config = parse(
        r#"{"access_log": false, "listeners": [{"name": "l", "address": "127.0.0.1:0", "http": {
            "routes": [{"respond": {"status": 200}}]}}]}"#,
    )
    .expect("JSON is YAML");
    assert_eq!(*config.sections.access_log, AccessLogTarget::Off);
}

#[test]
fn an_empty_file_is_a_configuration() {
    assert!(parse("").expect("every section is optional").sections.listeners.is_empty());
}

#[test]
fn every_problem_is_reported_at_once_with_its_place_and_cure() {
    let problems = parse(
        r#"
listners: []
listeners:
  - name: a
    address: 127.0.0.1:99999
    tcp: { cluster: api }
  - name: b
    address: 127.0.0.1:8080
    tcp: { cluster: ap1 }
  - name: b
    address: 127.0.0.1:8080
    http:
      filters: [ { plugin: authz } ]
      routes:
        - { cluster: api, timeout: 5, filters: { autz: off } }
clusters:
  - { name: api, endpoints: ["127.0.0.1"] , connect_timeout: 1s }
  - { name: api, endpoints: [] }
"#,
    )
    .expect_err("it has many problems");
    let expected = [
        "gateway.yaml:2:1: listners: unknown field `listners`; did you mean `listeners`?",
        "gateway.yaml:5:14: listeners[0].address: `127.0.0.1:99999` is not an address; write it as in `127.0.0.1:8080` or `[::1]:8080`",
        "gateway.yaml:9:21: listeners[1].tcp.cluster: cluster `ap1` is not defined; did you mean `api`?",
        "gateway.yaml:10:11: listeners[2].name: a second listener `b` (the first: line 7); rename one",
        "gateway.yaml:11:14: listeners[2].address: 127.0.0.1:8080 is the address of listener `b` too; give each its own",
        "gateway.yaml:13:28: listeners[2].http.filters[0].plugin: plugin `authz` cannot be found without a directory; add `plugins: { directory: ... }`",
        "gateway.yaml:15:36: listeners[2].http.routes[0].timeout: `5` is not a duration; write it as in `250ms`, `5s`, `1m` or `1h`",
        "gateway.yaml:15:56: listeners[2].http.routes[0].filters.autz: the listener has no filter `autz`; did you mean `authz`?",
        "gateway.yaml:17:30: clusters[0].endpoints[0]: `127.0.0.1` is not an endpoint; write `IP:port` or `dns-name:port`",
        "gateway.yaml:18:13: clusters[1].name: a second cluster `api` (the first: line 17); rename one",
    ];
    assert_eq!(problems, expected);
}

#[test]
fn contradictions_are_named() {
    let listener = |rest: &str| {
        parse(&format!("listeners:\n  - {{ name: l, address: \"127.0.0.1:1\", {rest} }}"))
            .expect_err("a contradiction")
            .join("\n")
    };
    for (rest, message) in [
        ("tcp: { cluster: a }, http: {}", "`tcp` or `http`, not both"),
        ("tcp: { cluster: a }, proxy_protocol: { from: [] }", "no proxy is listed"),
        (
            "tcp: { cluster: a }, proxy_protocol: { from: [\"10.0.0.0/33\"] }",
            "`10.0.0.0/33` is not an address or",
        ),
        (
            "tcp: { cluster: a }, proxy_protocol: { from: [\"::1\"], others: drop }",
            "`drop` is not possible here",
        ),
        ("tls: { mode: passthrough }, http: {}", "cannot be read through `tls: passthrough`"),
        ("tls: { mode: terminate }, http: {}", "needs a certificate"),
        ("tls: { mode: passthrough }", "nothing says where the connections go"),
        ("http: { routes: [ {} ] }", "nothing says what becomes of the request"),
        ("http: { routes: [ { match: { path: x }, respond: { status: 200 } } ] }", "begin it with `/`"),
        ("http: { routes: [ { respond: { status: 99 } } ] }", "99 is not a status"),
        (
            "http: { routes: [ { match: { path: /a, path_prefix: /b }, respond: { status: 200 } } ] }",
            "keep one",
        ),
        (
            "http: {}, tls: { mode: terminate, certificates: [ { cert: c, key: k } ], client_certificate: required }",
            "needs `client_ca`",
        ),
        (
            "http: {}, tls: { mode: terminate, certificates: [ { cert: c, key: k } ], client_crl: l }",
            "nobody is asked for a certificate",
        ),
        ("tcp: { cluster: a }, tls: { mode: passthrough, client_crl: l }", "asks nobody"),
        ("http: { routes: [ { cluster: a, redirect: {} } ] }", "exclude each other"),
        ("http: { routes: [ { redirect: { scheme: ftp } } ] }", "`ftp` is not possible here"),
        ("http: { routes: [ { redirect: { host: \"a b\" } } ] }", "`a b` is not a host"),
        ("http: { routes: [ { redirect: { port: 0 } } ] }", "write 1 to 65535"),
        ("http: { routes: [ { redirect: { path: x } } ] }", "begin it with `/`"),
        (
            "http: { routes: [ { match: { host: straße.example }, respond: { status: 200 } } ] }",
            "as `xn--...`",
        ),
        ("http: { routes: [ { match: { host: \"a:80\" }, respond: { status: 200 } } ] }", "without port"),
        ("http: { filters: [ { plugin: p, instances: 2 } ] }", "only filters with `scheduling: preemptible`"),
        ("http: { max_concurrent_streams: 4097 }", "`max_concurrent_streams` of its `http` is above 4096"),
        ("http: { max_headers: many }", "`many` is not a whole number"),
        ("http: { max_header: 5 }", "did you mean `max_headers`?"),
    ] {
        let problems = listener(rest);
        assert!(problems.contains(message), "{rest}: {problems}");
    }
}

#[test]
fn the_schema_describes_every_field_of_the_interface() {
    let schema = schema();
    let fields = |name: &str| -> Vec<String> {
        let properties = match name {
            "" => &schema["properties"],
            name => &schema["$defs"][name]["properties"],
        };
        properties.as_object().expect(name).keys().cloned().collect()
    };
    assert_eq!(
        fields(""),
        [
            "admin",
            "runtime",
            "node",
            "plugins",
            "listeners",
            "clusters",
            "overload",
            "drain_timeout",
            "access_log",
            "trusted_proxies"
        ]
    );
    assert!(fields("RouteSection").contains(&"match".to_owned()));
    assert!(fields("Http").contains(&"max_header_bytes".to_owned()));
    assert!(fields("Http").contains(&"routes".to_owned()));
    assert_eq!(schema["$defs"]["Cluster"]["properties"]["connect_timeout"]["default"], "15s");
    assert_eq!(schema["$defs"]["Cluster"]["required"], json!(["name"]));
}

#[test]
fn what_could_not_be_read_is_told_once_and_in_its_place() {
    let text = "listeners:\n  - name: web\n    address: 127.0.0.1:0\n    http:\n      filters: [ { config: a }, { name: b } ]\n";
    let problems = Config::parse(Path::new("weir.yaml"), text).expect_err("filters without plugins");
    let told: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|one| one.contains("the field `plugin` is missing; add it")), "{told:?}");
    assert!(problems.0.iter().all(|problem| problem.at.line == 5), "{told:?}");
}
