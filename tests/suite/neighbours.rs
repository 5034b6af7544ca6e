//! Hostile guests and their neighbours, in short: `cargo xtask soak hostile` has all of them, for longer, and looks at
//! latencies. Here nobody may fail, and nothing may be left.

use std::time::Duration;

use weir_tests::guests;
use weir_tests::hostile::{self, Hostile};
use weir_tests::soak::neighbours::{Outcomes, Plan, Subject, breaches, check, may_stay};
use weir_tests::soak::process::Usage;
use weir_tests::soak::upstream;

/// As generous as the timeout of the clients: a build may be running beside.
const SLOWEST: Duration = Duration::from_secs(2);

async fn checked(guest: &str) -> Outcomes {
    let upstream = upstream::start().await;
    let plan = Plan::short();
    let (guest, address) = (hostile::named(guest), upstream.address);
    let check = move || check(Subject::Weir(guests::weir()), &guest, plan, address);
    tokio::task::spawn_blocking(check).await.expect("a check")
}

/// Checks some guests, and has a breach in anything but latencies fail.
async fn unharmed_by(guests: &[&str]) {
    for guest in guests {
        let outcomes = checked(guest).await;
        assert!(outcomes.silent.is_none(), "{guest}: {:?}", outcomes.silent);
        let breaches: Vec<_> = outcomes.breaches.iter().filter(|breach| !breach.contains("p99")).collect();
        assert!(breaches.is_empty(), "{guest}: {breaches:?}");
        for [_, beside] in &outcomes.neighbours {
            assert!(beside.latencies.len() > 50, "{guest}: there was load: {}", beside.latencies.len());
            assert!(beside.quantile(1.0) < SLOWEST, "{guest}: {:?}", beside.quantile(1.0));
        }
        assert!(outcomes.provoked > 0, "{guest}: it was provoked");
    }
}

#[tokio::test]
async fn guests_that_loop_fail_none_of_their_neighbours() {
    unharmed_by(&["loop-request-headers", "loop-tick", "loop-new-connection", "just-under-its-budget"]).await;
}

#[tokio::test]
async fn guests_that_trap_fail_none_of_their_neighbours() {
    unharmed_by(&["trap-response-body", "trap-log", "trap-upstream-data", "allocator-traps"]).await;
}

#[tokio::test]
async fn guests_that_are_refused_at_their_start_fail_none_of_their_neighbours() {
    unharmed_by(&["trap-configure", "refuses-configuration", "begins-with-4-gib"]).await;
}

#[tokio::test]
async fn guests_that_take_all_that_there_is_fail_none_of_their_neighbours() {
    unharmed_by(&["memory-bomb", "deep-recursion", "log-flood", "table-bomb"]).await;
}

#[tokio::test]
async fn guests_that_give_bad_arguments_or_reach_for_others_fail_none_of_their_neighbours() {
    unharmed_by(&["giant-arguments", "forged-contexts", "allocator-out-of-bounds"]).await;
}

#[test]
fn every_hostile_guest_is_a_module_that_only_weirs_checks_can_refuse() {
    let guests = hostile::all();
    for Hostile { name, wat, .. } in &guests {
        assert!(wat::parse_str(wat).is_ok(), "{name}: {:?}", wat::parse_str(wat).err());
    }
    let mut names: Vec<_> = guests.iter().map(|guest| &guest.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), guests.len(), "each has a name of its own");
    assert!(names.len() > 70, "{}", names.len());
}

#[test]
fn shared_data_within_its_quota_is_no_memory_that_is_left() {
    const MIB: u64 = 1 << 20;
    // What a flood left when it had filled its quota, and when it went on beyond it.
    let left = |guest: &str, mib: u64| {
        let used = |mib: u64| Usage { resident: mib * MIB, ..Usage::default() };
        let held = hostile::named(guest).may_keep() as f64;
        let outcomes =
            Outcomes { usage: [used(100), used(200), used(100 + mib)], held, ..Outcomes::default() };
        breaches(&outcomes, may_stay(held))
    };
    for guest in ["shared-data-flood", "queue-flood", "one-queue-flood"] {
        assert!(left(guest, 67).is_empty(), "{guest}: {:?}", left(guest, 67));
        assert!(!left(guest, 140).is_empty(), "{guest} holds more than it may");
    }
    assert!(!left("log-flood", 67).is_empty(), "what keeps nothing has nothing to leave");
}
