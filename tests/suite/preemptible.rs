//! `scheduling: preemptible`: filters whose calls give way.

use weir_tests::parity::{difference, scenarios, weir};

#[tokio::test]
async fn what_envoy_was_seen_to_do_a_filter_whose_calls_give_way_does_too() {
    // One instance, since what is written down is what one instance said.
    let settings = serde_json::json!({ "scheduling": "preemptible", "instances": 1 });
    let settings = settings.as_object().expect("a mapping");
    let mut failed = String::new();
    let mut ran = 0;
    for scenario in scenarios::all() {
        ran += 1;
        let seen = weir::run_with(&scenario, settings).await.to_string();
        let (_, written) = scenario.written_down();
        if seen != written {
            let shown = difference(("written", &written), ("seen", &seen));
            failed.push_str(&format!("{}\n{shown}\n", scenario.name));
        }
    }
    assert!(ran > 60, "there are scenarios");
    assert!(failed.is_empty(), "{failed}");
}
