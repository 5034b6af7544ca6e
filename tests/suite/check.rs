//! `weir check` and the other commands that do not serve.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value as Json;
use weir_tests::Setup;
use weir_tests::gateway::own_address;
use weir_tests::guests::{self, wasm};
use weir_tests::tls::{authority, certificate};

fn weir(args: &[&str]) -> Output {
    Command::new(guests::weir()).args(args).env_remove("WEIR_LOG").output().expect("weir can be started")
}

/// Runs `weir check`: whether it is content, and what it printed.
pub fn check(config: &Path) -> (bool, String) {
    let output = weir(&["check", "--config", config.to_str().expect("a plain path")]);
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).expect("text"))
}

fn check_json(config: &Path) -> (bool, Json) {
    let output = weir(&["check", "--json", "--config", config.to_str().expect("a plain path")]);
    (output.status.success(), serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// Asserts that a line of the report has this place and this text.
pub fn assert_reported(report: &str, config: &Path, at: &str, text: &str) {
    let place = format!("{}:{at}:", config.display());
    let found = report.lines().any(|line| line.starts_with(&place) && line.contains(text));
    assert!(found, "no line {place} ... {text} in:\n{report}");
}

fn tls_files(setup: Setup) -> Setup {
    let (a, b) = (certificate(&["a.example"]), certificate(&["b.example"]));
    setup.file("a.pem", a.cert).file("a.key", a.key).file("b.key", b.key).file("ca.pem", authority().pem())
}

const GOOD: &str = r#"
listeners:
  - name: web
    address: 127.0.0.1:0
    tls: { mode: terminate, certificates: [ { cert: a.pem, key: a.key } ], client_ca: ca.pem, client_certificate: optional }
    http:
      filters: [ { plugin: authz, config: { rules: [ { allow: ["*"] } ] } } ]
      routes: [ { match: { path_prefix: / }, cluster: api } ]
clusters:
  - { name: api, endpoints: ["127.0.0.1:1"] }
"#;

#[test]
fn a_good_configuration_is_called_good_and_nothing_is_started() {
    let setup = tls_files(Setup::new().plugin("authz")).config(GOOD);
    let (good, report) = check(&setup.write_config());
    assert!(good, "{report}");
    assert!(report.contains("is good: 1 listener, 1 cluster, 1 filter tried"), "{report}");
    let (good, json) = check_json(&setup.write_config());
    assert!(good);
    assert_eq!(json["good"], true);
    assert_eq!(json["problems"], serde_json::json!([]));
}

/// The first lines are those that the harness would add, so that line numbers can be counted here.
const BAD: &str = r#"plugins: { directory: plugins, cache: cache }
runtime: { workers: 2, worker: 3 }
access_log: missing/folder/access.log
admin: { address: "127.0.0.1:0" }
listeners:
  - name: web
    address: 127.0.0.1:0
    tls:
      mode: terminate
      certificates: [ { cert: missing.pem, key: a.key } ]
    http:
      filters: [ { plugin: authz, config: { rulez: [] } } ]
      routes: [ { match: { path_prefix: / }, cluster: ap1 } ]
  - name: web
    address: 127.0.0.1:PORT
    tls: { mode: terminate, certificates: [ { cert: a.pem, key: b.key } ] }
    http:
      filters: [ { plugin: auths }, { plugin: http-version, name: two }, { plugin: http-version, name: two } ]
      routes: [ { respond: { status: 200 }, timeot: 5s } ]
  - name: third
    address: 127.0.0.1:0
    tcp: { cluster: api }
    filters: [ { plugin: broken } ]
clusters:
  - { name: api, endpoints: ["127.0.0.1:1"], tls: { ca: none.pem } }
  - { name: api, endpoints: ["nonsense"] }
"#;

#[test]
fn everything_that_is_wrong_is_reported_at_once_with_its_place_and_the_cure() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let setup =
        tls_files(Setup::new().plugin("authz").plugin("http-version").plugin_bytes("broken", b"\0asm"));
    let setup = setup.config(BAD.replace("PORT", &port.to_string()));
    let config = setup.write_config();
    let (good, report) = check(&config);
    assert!(!good, "{report}");
    let in_use = format!("127.0.0.1:{port} is in use by another process; stop it");
    for (at, text) in [
        ("2:24", "runtime.worker: unknown field `worker`; did you mean `workers`?"),
        ("3:13", "access_log: the access log cannot be opened"),
        ("10:31", "missing.pem cannot be read: No such file"),
        ("12:43", "plugin `authz`: the field `rules` is missing; add it"),
        ("12:45", "plugin `authz`: unknown field `rulez`; did you mean `rules`?"),
        ("13:55", "cluster `ap1` is not defined; did you mean `api`?"),
        ("14:11", "a second listener `web` (the first: line 6); rename one"),
        ("15:14", &in_use),
        ("16:65", "does not match the certificate in"),
        ("18:28", "plugin `auths` is not in"),
        ("18:104", "a second filter `two` (the first: line 18); give one of them a `name` of its own"),
        ("19:45", "unknown field `timeot`; did you mean `timeout`?"),
        ("23:26", "plugin `broken` was refused: it is not valid WebAssembly, or not all of it"),
        ("25:57", "none.pem cannot be read"),
        ("26:13", "a second cluster `api` (the first: line 25); rename one"),
        ("26:30", "`nonsense` is not an endpoint; write `IP:port` or `dns-name:port`"),
    ] {
        assert_reported(&report, &config, at, text);
    }
    assert!(report.contains("did you mean `authz`?"), "{report}");
    let (_, json) = check_json(&config);
    let problems = json["problems"].as_array().expect("a list");
    assert_eq!(problems.len(), 16, "each of them once, and nothing else: {json:#}");
    let places: Vec<_> = problems.iter().map(|p| (p["line"].as_u64(), p["column"].as_u64())).collect();
    assert!(places.is_sorted(), "in the order of the file: {places:?}");
    assert_eq!(problems[0]["field"], "runtime.worker");
}

#[test]
fn what_run_refuses_it_reports_as_check_does_and_exits_with_1() {
    let setup = Setup::new().plugin("authz").config(GOOD);
    let gateway = setup.launch();
    assert_eq!(gateway.wait_for_exit().code(), Some(1));
    gateway.wait_for_log("a.pem cannot be read: No such file");
    gateway.wait_for_log("ca.pem cannot be read");
}

#[test]
fn a_file_that_is_no_yaml_or_not_there_is_named() {
    let setup = Setup::new().config("listeners: [ { name: x");
    let (good, report) = check(&setup.write_config());
    assert!(!good);
    assert!(report.contains("weir.yaml:"), "{report}");
    let (good, report) = check(Path::new("no/such/weir.yaml"));
    assert!(!good);
    assert!(report.contains("no/such/weir.yaml:1:1: cannot be read"), "{report}");
}

#[test]
fn the_ports_of_the_weir_that_runs_this_file_are_not_in_its_way_but_those_of_another_are() {
    let (listener, admin) = (own_address(71), own_address(72));
    let config = format!(
        "admin: {{ address: \"{admin}\" }}\n\
         listeners: [ {{ name: web, address: \"{listener}\", http: {{ routes: [ {{ respond: {{ status: 200 }} }} ] }} }} ]"
    );
    let gateway = Setup::new().config(config.clone()).start();
    let (good, report) = check(&gateway.folder().join("weir.yaml"));
    assert!(good, "{report}");
    assert!(report.contains("is held by the Weir that runs this configuration now"), "{report}");
    let second = Setup::new().config(config);
    let (good, report) = check(&second.write_config());
    assert!(!good, "{report}");
    assert_eq!(report.matches("is in use by another process").count(), 2, "{report}");
    let second = second.launch();
    assert_eq!(second.wait_for_exit().code(), Some(1), "a second Weir does not share a port in silence");
    second.wait_for_log("is in use by another process; stop it");
}

#[test]
fn a_plugin_that_nobody_uses_is_noted_and_stops_nothing() {
    let setup = tls_files(Setup::new().plugin("authz").plugin_bytes("spare", b"no wasm")).config(GOOD);
    let (good, report) = check(&setup.write_config());
    assert!(good, "{report}");
    assert!(
        report.contains("plugin `spare` is not used, and would be refused: it is not a WebAssembly module"),
        "{report}"
    );
}

#[test]
fn the_schema_is_printed_as_json_schema() {
    let output = weir(&["schema"]);
    assert!(output.status.success());
    let schema: Json = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema, weir::config::schema(), "all of it");
}

/// Runs `weir plugin inspect`: whether the file is loadable, and what is printed as JSON and for people.
pub fn inspect(bytes: &[u8]) -> (bool, Json, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("plugin.wasm");
    std::fs::write(&file, bytes).expect("it can be written");
    let file = file.to_str().expect("a plain path");
    let output = weir(&["plugin", "inspect", "--json", file]);
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let text = weir(&["plugin", "inspect", file]).stdout;
    (output.status.success(), json, String::from_utf8(text).expect("text"))
}

#[test]
fn inspect_shows_what_a_plugin_is_and_needs() {
    let bytes = wasm("authz");
    let (good, json, text) = inspect(&bytes);
    assert!(good, "{json:#}");
    assert_eq!(json["size"], bytes.len());
    assert_eq!(json["abi"], "0.2.1");
    assert_eq!(json["sdk"], format!("weir-sdk {}", env!("CARGO_PKG_VERSION")));
    let has = |list: &str, name: &str| json[list].as_array().expect("a list").iter().any(|item| item == name);
    assert!(has("callbacks", "proxy_on_request_headers"), "{json:#}");
    assert!(!has("callbacks", "proxy_on_request_body"), "only what it implements is exported: {json:#}");
    assert!(has("host_functions", "proxy_get_property"), "{json:#}");
    assert!(json["memory"]["initial"].as_u64().expect("a number") >= 65536);
    assert!(json["digest"].as_str().expect("text").starts_with("sha256:"));
    assert!(text.contains("loadable"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("callbacks       ")), "{text}");
}

#[test]
fn inspect_tells_the_official_sdk_and_the_wasi_functions_that_it_needs() {
    let (good, json, _) = inspect(&wasm("official-headers"));
    assert!(good, "{json:#}");
    assert!(json["sdk"].as_str().is_some_and(|sdk| sdk.starts_with("proxy-wasm 0.2")), "{json:#}");
    assert!(!json["wasi_functions"].as_array().expect("a list").is_empty(), "{json:#}");
}

#[test]
fn inspect_says_why_a_file_would_be_refused_and_exits_with_1() {
    let cases: [(&[u8], &str); 3] = [
        (b"#!/bin/sh", "it is not a WebAssembly module"),
        (b"\0asm\x0d\0\x01\0", "it is a component"),
        (b"\0asm\x01\0\0\0", "it exports no proxy_abi_version_*"),
    ];
    for (bytes, reason) in cases {
        let (good, json, text) = inspect(bytes);
        assert!(!good);
        assert!(json["refused"].as_str().is_some_and(|text| text.contains(reason)), "{json:#}");
        assert!(text.contains(reason), "{text}");
    }
    let text = "(module (import \"env\" \"no_such\" (func)) (memory (export \"memory\") 1) \
                (func (export \"proxy_abi_version_0_2_1\")))";
    let (good, json, _) = inspect(&guests::wat(text));
    assert!(!good);
    assert_eq!(json["unknown_imports"], serde_json::json!(["env.no_such"]));
    assert!(json["refused"].as_str().is_some_and(|text| text.contains("`env.no_such`")), "{json:#}");
}

#[test]
fn a_grant_of_a_cluster_that_there_is_not_is_an_error_in_its_place() {
    let config = "listeners:\n  - name: web\n    address: 127.0.0.1:0\n    http:\n      filters:\n        \
                  - plugin: authz\n          config: { rules: [ { allow: [\"*\"] } ] }\n          \
                  grants: { clusters: [api, ap1] }\n      routes: [ { cluster: api } ]\n\
                  clusters: [ { name: api, endpoints: [\"127.0.0.1:1\"] } ]\n";
    let setup = Setup::new().plugin("authz").config(config);
    let path = setup.write_config();
    let (good, report) = check(&path);
    assert!(!good, "{report}");
    let line = 1 + std::fs::read_to_string(&path)
        .expect("it was written")
        .lines()
        .position(|l| l.contains("ap1"))
        .expect("it is there");
    assert_reported(
        &report,
        &path,
        &format!("{line}:37"),
        "cluster `ap1` is not defined; did you mean `api`?",
    );
    assert!(report.contains("listeners[0].http.filters[0].grants.clusters[1]"), "{report}");
}
