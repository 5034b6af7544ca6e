//! What Envoy was seen to do (`tests/parity`), with filters whose calls give way.

use weir_tests::parity::Scenario;

use crate::parity::{differences, family};

/// A transcript without what is left open where calls give way: in which order several filters hear of the end of a
/// stream; and whether the upstream has seen the beginning of a request that is answered in the middle of its body, since
/// what is let go goes on while the next call is still to return.
fn told(scenario: &Scenario, transcript: String) -> String {
    let (rest, log) = transcript.split_once("--- log\n").expect("a log");
    let mut log: Vec<&str> = log.lines().collect();
    log.sort_by_key(|line| line.split(':').next());
    let rest = match scenario.name {
        "reply-to-body" => rest.split("--- upstream").next().unwrap_or_default(),
        _ => rest,
    };
    format!("{rest}--- log\n{}\n", log.join("\n"))
}

async fn run(name: &str) {
    // One instance, since what is written down is what one instance said.
    let settings = serde_json::json!({ "scheduling": "preemptible", "instances": 1 });
    let failed = differences(family(name), settings.as_object().expect("a mapping"), told).await;
    assert!(failed.is_empty(), "{failed}");
}

macro_rules! families {
    ($($test:ident: $family:literal;)*) => {
        $(#[tokio::test]
        async fn $test() {
            run($family).await;
        })*
    };
}

families! {
    headers_and_trailers_are_the_same_where_calls_give_way: "headers";
    bodies_are_the_same_where_calls_give_way: "bodies";
    flow_control_is_the_same_where_calls_give_way: "flow";
    local_replies_are_the_same_where_calls_give_way: "replies";
    http_calls_are_the_same_where_calls_give_way: "calls";
    grpc_calls_are_the_same_where_calls_give_way: "grpc";
    shared_data_queues_and_metrics_are_the_same_where_calls_give_way: "shared";
    properties_and_foreign_functions_are_the_same_where_calls_give_way: "properties";
    the_life_of_plugins_and_of_connections_is_the_same_where_calls_give_way: "life";
}
