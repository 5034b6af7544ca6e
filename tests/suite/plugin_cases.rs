//! `weir plugin test`: cases in YAML against the host, and what the command says of those that do not fit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use weir::author::test::{Wanted, test};
use weir_tests::guests::{filters, test_guests, weir};

fn guest(name: &str) -> PathBuf {
    test_guests().join(format!("{}.wasm", name.replace('-', "_")))
}

/// Runs a file of cases on a plugin, and gives what the command said and its exit status.
fn run(file: &Path, plugin: &Path, more: &[&str]) -> (String, Option<i32>) {
    let Output { stdout, stderr, status } = Command::new(weir())
        .args(["plugin", "test"])
        .arg(file)
        .arg("--plugin")
        .arg(plugin)
        .args(more)
        .env("NO_COLOR", "1")
        .output()
        .expect("weir runs");
    let said = String::from_utf8(stdout).expect("text") + &String::from_utf8(stderr).expect("text");
    (said, status.code())
}

/// Runs cases on a guest of the suite, which are all good.
fn all_good(guest_name: &str, cases: &str) {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("cases.yaml");
    fs::write(&file, cases).expect("it is written");
    let (said, status) = run(&file, &guest(guest_name), &[]);
    assert_eq!(status, Some(0), "{said}");
}

/// Runs one that is not good.
fn bad(guest_name: &str, cases: &str) -> String {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("cases.yaml");
    fs::write(&file, cases).expect("it is written");
    let (said, status) = run(&file, &guest(guest_name), &[]);
    assert_eq!(status, Some(1), "{said}");
    said.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn the_cases_of_every_standard_filter_pass() {
    let mut tried = 0;
    for name in xtask::guests::filters().expect("there are filters") {
        let folder = xtask::cargo::root().join("filters").join(&name);
        if !folder.join("cases").is_dir() {
            continue;
        }
        let plugin = Some(filters().join(format!("{name}.wasm")));
        let tested = test(&Wanted { paths: vec![folder], plugin, ..Wanted::default() }).expect("they run");
        for outcome in tested.iter().flat_map(|file| &file.outcomes) {
            tried += 1;
            let differences: Vec<String> = outcome.differences.iter().map(|found| found.text()).collect();
            assert!(outcome.is_good(), "{name}: {}: {differences:#?}", outcome.name);
        }
    }
    assert!(tried >= 10, "{tried} cases");
}

#[test]
fn a_call_is_answered_from_the_case_and_without_an_answer_the_filter_hears_of_none() {
    all_good(
        "official-auth",
        r#"
filter: { grants: { clusters: [authority] } }
cases:
  - name: it lets pass what the cluster grants
    calls:
      - { cluster: authority, path: /yes, answer: { status: 201, body: "2", after: 300ms } }
    request: { path: "/yes?x=1" }
    expect:
      request: { headers: { x-granted-by: 201 of 1 } }
      response: { status: 200, headers: { powered-by: proxy-wasm } }
      calls: [ { cluster: authority, method: GET, path: "/yes?x=1", host: auth.internal } ]
      log: [ "info: Access granted." ]
  - name: it denies what the cluster does not grant
    calls:
      - { cluster: authority, answer: { body: "1" } }
    request: {}
    expect: { forwarded: false, response: { status: 403, body: "Access forbidden.\n" } }
  - name: an answer that is later than the call may take is none
    calls:
      - { cluster: authority, answer: { body: "2", after: 1001ms } }
    request: {}
    expect: { forwarded: false, response: { status: 403 } }
  - name: a connection that fails is no answer
    calls:
      - { cluster: authority, answer: { fails: true } }
    request: {}
    expect: { forwarded: false, response: { status: 403 } }
  - name: the first answer may be for one call only
    calls:
      - { cluster: authority, times: 1, answer: { body: "2" } }
      - { cluster: authority, answer: { body: "1" } }
    steps:
      - { request: {}, expect: { response: { status: 200 } } }
      - { request: {}, expect: { response: { status: 403 } } }
"#,
    );
}

#[test]
fn a_call_that_the_case_has_no_answer_for_fails_it_by_name() {
    let said = bad(
        "official-auth",
        "filter: { grants: { clusters: [authority] } }\ncases:\n  - name: a\n    request: { path: /x }\n",
    );
    assert!(said.contains("no answer is planned for a call: GET /x to cluster `authority`"), "{said}");
}

#[test]
fn time_goes_on_by_itself_while_a_filter_waits_and_costs_none() {
    let start = std::time::Instant::now();
    all_good(
        "official-tick",
        r#"
cases:
  - name: a request waits for the next tick, and an hour has 360,000
    steps:
      - { request: {}, expect: { request: { headers: { x-tick: "1" } } } }
      - { after: 60s, request: {}, expect: { request: { headers: { x-tick: "6002" } } } }
"#,
    );
    assert!(start.elapsed().as_secs() < 60, "a minute was waited for");
}

#[test]
fn shared_data_metrics_and_properties_are_put_in_and_looked_at() {
    all_good(
        "sharing",
        r#"
cases:
  - name: it counts on from what is there
    shared_data: { count: "41" }
    connection: { peer: "10.1.2.3:999" }
    route: { name: here, cluster: api, endpoint: "10.0.0.7:80" }
    steps:
      - request: { path: /a, headers: { user-agent: me } }
        response: { status: 404 }
        expect:
          response:
            headers:
              x-count: "42"
              x-source: "10.1.2.3:999"
              x-route: here
              x-cluster: api
              x-upstream: "10.0.0.7:80"
              x-code: "404"
              x-agent: me
          properties: { sharing.note: kept, response.code: 404, connection.mtls: false, no.such: null }
          shared_data: { count: "42", nothing: null }
          metrics: { requests_seen: 1, requests_open: 0, path_length: 1, no_such: null }
      - request: {}
        expect: { metrics: { requests_seen: 2 }, shared_data: { count: "43" } }
"#,
    );
}

#[test]
fn a_trap_fails_a_case_with_its_backtrace_unless_it_is_expected_and_the_next_request_has_a_new_instance() {
    let cases = |expect: &str| {
        format!(
            "cases:\n  - name: a\n    steps:\n      - request: {{ headers: {{ x-fault: trap }} }}\n{expect}      \
             - request: {{}}\n        expect: {{ response: {{ status: 200 }} }}\n"
        )
    };
    let said = bad("faulty", &cases(""));
    assert!(said.contains("cases.yaml:2:5: the plugin failed: trap: "), "{said}");
    assert!(said.contains("on_request_headers"), "with the names of functions: {said}");
    let expect = "        expect: { forwarded: false, response: { status: 503, body: \"\" }, failure: { contains: trap } }\n";
    all_good("faulty", &cases(expect));
}

#[test]
fn bodies_in_pieces_pass_in_pieces_and_trailers_behind_them() {
    all_good(
        "bodies",
        r#"
filter: { config: {} }
cases:
  - name: as they come
    request: { method: POST, body: [one, two], trailers: { x-end: all } }
    response: { body: [three, { size: 100KiB }] }
    expect:
      request: { body: onetwo, trailers: { x-end: all } }
      response: { body: { matches: "^threex{102400}$" } }
  - name: held until they are whole
    config: { hold_request: true, hold_response: true }
    request: { method: POST, body: [one, two] }
    response: { body: [three, four] }
    expect:
      request: { body: ONETWO (6 bytes) }
      response: { body: "[threefour]" }
  - name: more than may be held is answered in its place
    config: { hold_request: true }
    request: { method: POST, body: [{ size: 600KiB }, { size: 600KiB }, x] }
    expect: { forwarded: true, response: { status: 413 }, details: request_body_over_buffer_limit }
"#,
    );
}

#[test]
fn filters_whose_calls_give_way_and_those_of_single_streams_are_tried_as_they_are_configured() {
    all_good(
        "official-auth",
        r#"
calls: [ { cluster: authority, answer: { body: "2", after: 5ms } } ]
cases:
  - name: preemptible
    filter: { scheduling: preemptible, grants: { clusters: [authority] } }
    steps:
      - { request: {}, expect: { request: { headers: { x-granted-by: 200 of 1 } } } }
      - { request: {}, expect: { request: { headers: { x-granted-by: 200 of 1 } } } }
  - name: an instance for each stream
    filter: { isolation: stream, grants: { clusters: [authority] } }
    steps:
      - { request: {}, expect: { request: { headers: { x-granted-by: 200 of 1 } } } }
      - { request: {}, expect: { request: { headers: { x-granted-by: 200 of 1 } } } }
"#,
    );
}

#[test]
fn a_network_filter_holds_data_and_closes_connections() {
    all_good(
        "tcp-tap",
        r#"
filter: { config: { until: "\n", forbidden: evil } }
cases:
  - name: bytes are held until the line is whole
    data: [ { client: "he" }, { client: "llo\n" }, { upstream: world } ]
    expect: { closed: false, upstream_gets: "HELLO\n", client_gets: "> world" }
  - name: what is forbidden closes the connection
    data: [ { client: "fine\n" }, { client: "evil\n" }, { client: "never\n" } ]
    expect: { closed: true, upstream_gets: "FINE\n", details: closed_by_filter }
"#,
    );
}

#[test]
fn null_is_what_is_not_there_in_every_place_where_bytes_are_expected() {
    all_good(
        "tcp-tap",
        "cases:\n  - name: a\n    config: {}\n    data: []\n    expect: { cluster: null, details: null, failure: null }\n",
    );
    let said = bad(
        "official-auth",
        "filter: { grants: { clusters: [authority] } }\ncases:\n  - name: a\n    calls: [ { cluster: authority, answer: \
         { body: \"1\" } } ]\n    request: {}\n    expect: { response: { status: null, headers: { powered-by: null } }, \
         calls: [ { cluster: null } ] }\n",
    );
    for (field, got) in [
        ("expect.response.status", "403"),
        ("expect.response.headers.powered-by", "proxy-wasm"),
        ("expect.calls[0].cluster", "authority"),
    ] {
        assert!(
            said.contains(&format!("cases[0].{field}\n       - (none)\n       + {got}\n")),
            "{field}: {said}"
        );
    }
}

#[test]
fn what_is_wrong_in_a_file_of_cases_is_told_with_line_and_column_all_at_once() {
    let said = bad(
        "phases",
        "filters: {}\ntime: yesterday\ncases:\n  - name: a\n    request: { headers: { \":path\": x } }\n    expect: { \
         respons: {} }\n  - name: a\n  - name: b\n    request: { body: { base65: x } }\n",
    );
    for problem in [
        "cases.yaml:1:1: filters: unknown field `filters`; did you mean `filter`?",
        "cases.yaml:2:7: time: `yesterday` is not a time; write it as in `2026-01-31T12:00:00Z`",
        "cases.yaml:5:27: cases[0].request.headers.:path: `:path` is not the name of a header; `method`, `host`,",
        "cases.yaml:6:15: cases[0].expect.respons: unknown field `respons`; did you mean `response`?",
        "cases.yaml:7:11: cases[1].name: line 4 has this name already",
        "cases.yaml:7:5: cases[1]: the case does nothing",
        "cases.yaml:9:24: cases[2].request.body.base65: `base65` is not possible here",
    ] {
        assert!(said.contains(problem), "{problem}\nin\n{said}");
    }
}

#[test]
fn what_does_not_fit_is_shown_line_by_line_and_an_update_writes_what_there_is() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("cases.yaml");
    let before = r#"# Stays.
cases:
  - name: a
    request: { path: /a }
    response: { body: "one\ntwo\nthree" }
    # Stays, too.
    expect:
      response:
        status: 500
        body: "one\n2\nthree"   # does not stay
        headers: { x-method: [GET, PUT], x-none: "1" }

  - name: b
    request: { path: /b }
    response: { headers: { x-up: "1" } }
"#;
    fs::write(&file, before).expect("it is written");
    let (said, status) = run(&file, &guest("sharing"), &[]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("cases[0].expect.response.status\n       - 500\n       + 200\n"), "{said}");
    assert!(said.contains("body\n         one\n       - 2\n       + two\n         three\n"), "{said}");
    assert!(said.contains("x-method\n         GET\n       - PUT\n"), "{said}");
    assert!(said.contains("x-none\n       - 1\n       + (none)\n"), "{said}");
    assert!(said.contains("ok   b\n2 cases: 1 good, 1 bad"), "{said}");

    let (said, status) = run(&file, &guest("sharing"), &["--update"]);
    assert_eq!(status, Some(0), "{said}");
    let after = fs::read_to_string(&file).expect("it is there");
    let own = r#"# Stays.
cases:
  - name: a
    request: { path: /a }
    response: { body: "one\ntwo\nthree" }
    # Stays, too.
    expect:
      response:
        status: 200
        body: "one\ntwo\nthree"
        headers:
          x-method: GET
          x-none: null

  - name: b
    request: { path: /b }
    response: { headers: { x-up: "1" } }
    expect:
      response:
        headers:
"#;
    assert!(after.starts_with(own), "{after}");
    assert!(after.contains("          x-url-path: /b\n") && !after.contains("x-up:  "), "{after}");
    let (said, status) = run(&file, &guest("sharing"), &["--update"]);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(fs::read_to_string(&file).expect("it is there"), after, "nothing is left to write");
    let (said, status) = run(&file, &guest("sharing"), &["--only", "nothing"]);
    assert_eq!(status, Some(1), "{said}");
}

#[test]
fn scripts_are_told_what_does_not_fit_in_json() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("cases.yaml");
    let cases = "cases:\n  - name: a\n    request: {}\n    expect: { response: { status: 201 } }\n  - name: b\n    request: {}\n";
    fs::write(&file, cases).expect("it is written");
    let out = Command::new(weir())
        .args(["plugin", "test", "--json", "--plugin"])
        .arg(guest("sharing"))
        .arg(&file)
        .output();
    let out = out.expect("weir runs");
    assert_eq!(out.status.code(), Some(1));
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let found = &told[0]["cases"][0]["differences"][0];
    assert_eq!((&found["field"], &found["line"]), (&"cases[0].expect.response.status".into(), &4.into()));
    assert_eq!((&found["wanted"], &found["got"]), (&"201".into(), &"200".into()));
    assert_eq!(told[0]["cases"][1]["good"], true);
}

#[test]
fn the_schema_of_cases_names_every_field_of_a_filter_and_needs_no_plugin() {
    let out = Command::new(weir()).args(["plugin", "test", "--schema"]).output().expect("weir runs");
    let schema: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let filter = &schema["$defs"]["Case"]["properties"]["filter"];
    assert!(filter.to_string().contains("on_failure"), "{filter}");
    assert_eq!(filter["required"], serde_json::json!([]));
}

/// Filters beside the tested one are of files beside the cases.
fn with_neighbours(cases: &str) -> (String, Option<i32>) {
    let folder = TempDir::new().expect("a folder");
    fs::copy(filters().join("header-rewrite.wasm"), folder.path().join("beside.wasm")).expect("it is there");
    let file = folder.path().join("cases.yaml");
    fs::write(&file, cases).expect("it is written");
    let (said, status) = run(&file, &filters().join("authz.wasm"), &[]);
    (said.replace(&format!("{}/", folder.path().display()), ""), status)
}

#[test]
fn other_filters_can_stand_before_and_behind_the_tested_one_in_the_chain() {
    let (said, status) = with_neighbours(
        r#"
filter: { config: { rules: [ { allow: ["*"], headers: { x-tenant: ann } } ] } }
before: [ { plugin: beside.wasm, config: { request: { set: { x-tenant: ann } } } } ]
cases:
  - name: it decides by what the filter before it has set
    request: {}
    expect: { response: { status: 200 }, request: { headers: { x-tenant: ann } } }
  - name: what stands behind it has the last word on what goes on
    behind:
      - { plugin: beside.wasm, config: { request: { rename: { x-tenant: x-who } } } }
      - { plugin: beside.wasm, config: { request: { set: { x-last: "1" } } } }
    request: {}
    expect: { request: { headers: { x-tenant: null, x-who: ann, x-last: "1" } } }
  - name: a case says who stands there in the place of the file
    before: []
    request: {}
    expect: { response: { status: 403 }, forwarded: false }
  - name: an answer of its own passes the filters before it
    before: [ { plugin: beside.wasm, config: { response: { set: { x-seen: "yes" } } } } ]
    request: {}
    expect: { response: { status: 403, headers: { x-seen: "yes" } }, forwarded: false }
"#,
    );
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("4 cases: 4 good, 0 bad"), "{said}");
}

#[test]
fn what_is_wrong_with_a_filter_beside_the_tested_one_is_told() {
    for (beside, problem) in [
        ("{ config: {} }", "cases.yaml:1:11: before[0]: a filter beside the tested one names its plugin"),
        ("{ plugin: nowhere.wasm }", "nowhere.wasm cannot be read; give a .wasm file"),
        ("{ plugin: beside.wasm, conf: {} }", "unknown field `conf`; did you mean `config`?"),
        ("{ plugin: beside.wasm, config: 7 }", "`beside`, beside the tested filter, does not start: "),
    ] {
        let (said, status) = with_neighbours(&format!(
            "before: [ {beside} ]\nfilter: {{ config: {{ rules: [] }} }}\ncases: [ {{ name: one, request: {{}} }} ]\n"
        ));
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(problem), "{problem}\nin\n{said}");
    }
}
