//! The scenarios that were run in Envoy (`cargo xtask parity`), in Weir: what comes of them is what is written down.

use std::collections::BTreeSet;

use weir_tests::parity::{Scenario, difference, explained, scenarios, weir};

/// Runs the scenarios whose names begin with one of the words.
async fn run(words: &[&str]) {
    let failed = differences(words, &serde_json::Map::new(), |_, transcript| transcript).await;
    assert!(failed.is_empty(), "{failed}");
}

/// Runs them with further settings of the filters, and looks at what `told` makes of the transcripts.
pub async fn differences(
    words: &[&str],
    settings: &serde_json::Map<String, serde_json::Value>,
    told: impl Fn(&Scenario, String) -> String,
) -> String {
    let mine = |scenario: &Scenario| words.iter().any(|word| scenario.name.starts_with(word));
    let mut failed = String::new();
    let mut ran = 0;
    for scenario in scenarios::all().into_iter().filter(mine) {
        ran += 1;
        let seen = told(&scenario, weir::run_with(&scenario, settings).await.to_string());
        let (_, written) = scenario.written_down();
        let written = told(&scenario, written);
        if seen != written {
            let shown = difference(("written", &written), ("seen", &seen));
            failed.push_str(&format!("{}\n{shown}\n", scenario.name));
        }
    }
    assert!(ran > 0, "there are scenarios");
    failed
}

/// Each family is a test of its own, so that they run beside each other.
const FAMILIES: [(&str, &[&str]); 11] = [
    ("filters", &["filter-"]),
    ("headers", &["headers", "trailers"]),
    ("bodies", &["body", "response-body"]),
    ("flow", &["pause", "go-on", "stop-iteration", "close"]),
    ("replies", &["reply"]),
    ("calls", &["call", "two-calls"]),
    ("grpc", &["grpc"]),
    ("sdk", &["sdk"]),
    ("shared", &["shared", "queue", "metrics"]),
    ("properties", &["properties", "foreign"]),
    (
        "life",
        &[
            "vm",
            "environment",
            "v0-1",
            "trap",
            "time",
            "tick",
            "context",
            "done",
            "refuse",
            "tcp",
            "two-plugins",
        ],
    ),
];

pub fn family(name: &str) -> &'static [&'static str] {
    FAMILIES.iter().find(|(family, _)| *family == name).expect("a family").1
}

macro_rules! families {
    ($($test:ident: $family:literal;)*) => {
        $(#[tokio::test]
        async fn $test() {
            run(family($family)).await;
        })*
    };
}

families! {
    headers_and_trailers_are_what_envoy_makes_of_them: "headers";
    bodies_are_what_envoy_makes_of_them: "bodies";
    flow_control_is_that_of_envoy: "flow";
    local_replies_are_those_of_envoy: "replies";
    http_calls_are_those_of_envoy: "calls";
    grpc_calls_are_those_of_envoy: "grpc";
    filters_of_our_sdk_await_the_same_in_envoy: "sdk";
    shared_data_queues_and_metrics_are_those_of_envoy: "shared";
    properties_and_foreign_functions_are_those_of_envoy: "properties";
    the_standard_filters_do_what_they_do_in_envoy: "filters";
    the_life_of_plugins_and_of_connections_is_that_of_envoy: "life";
}

#[test]
fn every_scenario_is_run_and_every_difference_explained() {
    let all = scenarios::all();
    assert!(all.len() >= 60, "{} scenarios", all.len());
    let names: BTreeSet<&str> = all.iter().map(|scenario| scenario.name).collect();
    assert_eq!(names.len(), all.len(), "names are there once");
    let in_family =
        |name: &&str| FAMILIES.iter().any(|(_, words)| words.iter().any(|word| name.starts_with(word)));
    let left: Vec<&str> = names.iter().copied().filter(|name| !in_family(name)).collect();
    assert!(left.is_empty(), "in no family: {left:?}");
    for scenario in &all {
        let (envoy, weir) = scenario.written_down();
        assert!(!envoy.is_empty(), "{}: run `cargo xtask parity --update {0}`", scenario.name);
        assert!(envoy == weir || explained(scenario.name), "{}: docs/compatibility.md", scenario.name);
    }
}
