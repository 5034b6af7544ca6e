//! What plugins of our SDK say of themselves, and what `weir check` makes of it.

use weir::plugin::inspect::Inspection;
use weir_tests::Setup;
use weir_tests::guests::wasm;

use crate::check::{assert_reported, check};

/// The description that a module holds.
pub fn described(guest: &str) -> serde_json::Value {
    let bytes = wasm(guest);
    let payloads = wasmparser::Parser::new(0).parse_all(&bytes);
    let sections = payloads.filter_map(|payload| match payload.expect("a module") {
        wasmparser::Payload::CustomSection(section) if section.name() == weir_abi::PLUGIN_SECTION => {
            Some(serde_json::from_slice(section.data()).expect("JSON"))
        }
        _ => None,
    });
    let all: Vec<serde_json::Value> = sections.collect();
    assert_eq!(all.len(), 1, "{guest} has one section");
    all[0].clone()
}

#[test]
fn a_plugin_holds_its_name_its_version_what_it_asks_for_and_the_schema_of_its_configuration() {
    let authz = described("authz");
    assert_eq!((&authz["name"], &authz["sdk"]), (&"authz".into(), &"weir-sdk 0.1.0".into()));
    assert_eq!(authz["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(authz["config"]["required"], serde_json::json!(["rules"]));
    let allow = &authz["config"]["properties"]["rules"]["items"]["properties"]["allow"];
    assert_eq!(allow["anyOf"][0]["items"]["type"], "string");
    let awaits = described("awaits");
    assert_eq!(awaits["grants"], serde_json::json!({ "clusters": ["other"] }));
    assert_eq!(awaits.get("config").and_then(|config| config.get("type")), Some(&"null".into()));
    assert!(described("phases").get("config").is_none(), "a configuration without a schema is not described");
    let engine = weir::plugin::engine::PluginEngine::new().expect("an engine");
    let inspection = Inspection::of(engine.engine(), &wasm("awaits"));
    assert_eq!(inspection.asks_for, ["clusters: [other]"]);
}

const SLIPS: &str = r#"plugins: { directory: plugins, cache: cache }
admin: { address: "127.0.0.1:0" }
runtime: { workers: 1 }
listeners:
  - name: web
    address: 127.0.0.1:0
    http:
      filters:
        - plugin: authz
          config:
            rules:
              - allow: ["*"]
                path_prefx: /a
              - deny: "*"
            decision_header: 7
        - plugin: header-rewrite
      routes:
        - match: { path_prefix: /a }
          cluster: api
          filters:
            header-rewrite:
              config: { request: { set: { x-a: [1] } } }
        - cluster: api
clusters:
  - { name: api, endpoints: ["127.0.0.1:1"] }
"#;

#[test]
fn every_slip_in_a_filters_configuration_is_told_with_its_own_line_and_told_once() {
    let setup = Setup::new().plugin("authz").plugin("header-rewrite");
    let file = setup.folder().join("weir.yaml");
    std::fs::write(&file, SLIPS).expect("the folder can be written");
    let (good, report) = check(&file);
    assert!(!good, "{report}");
    for (at, text) in [
        (
            "13:17",
            "listeners[0].http.filters[0].config.rules[0].path_prefx: plugin `authz`: unknown field `path_prefx`; did you mean `path_prefix`?",
        ),
        ("14:23", "config.rules[1].deny: plugin `authz`: a list is expected here, not the text `*`"),
        ("15:30", "config.decision_header: plugin `authz`: a text is expected here, not `7`"),
        (
            "22:48",
            "routes[0].filters.header-rewrite.config.request.set.x-a: plugin `header-rewrite`: a text is expected here, not a list",
        ),
    ] {
        assert_reported(&report, &file, at, text);
    }
    let problems =
        report.lines().filter(|line| line.contains("weir.yaml:") && !line.contains("note")).count();
    assert_eq!(problems, 4, "that the plugins refuse it is no news: {report}");
}

#[test]
fn a_configuration_that_fits_its_schema_and_not_its_filter_is_told_by_the_filter() {
    let config = "listeners: [ { name: web, address: \"127.0.0.1:0\", http: { routes: [ { respond: { status: 200 } } ], \
         filters: [ { plugin: authz, config: { rules: [ {} ] } } ] } } ]\n";
    let (good, report) = check(&Setup::new().plugin("authz").config(config).write_config());
    assert!(!good && report.contains("rules[0] says neither `allow` nor `deny`"), "{report}");
}
