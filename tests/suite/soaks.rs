//! Short forms of the long runs that `cargo xtask soak` makes of random modules, of reloads and of rotations.

use std::time::Duration;

use weir_tests::guests;
use weir_tests::soak::reload::{self, Storm};
use weir_tests::soak::rotation::{self, Plan};
use weir_tests::soak::{modules, upstream};

/// How long one module may take to be compiled and to use up all of its budgets, on a machine that is busy.
const LONGEST: Duration = Duration::from_secs(30);

#[test]
fn three_hundred_random_modules_crash_nothing_and_leave_nothing() {
    let tally = modules::run(1_000_000, 300);
    assert_eq!(tally.count(), 300, "{tally:?}");
    assert_eq!((tally.instances_left, tally.memory_left), (0, 0), "{tally:?}");
    assert!(tally.slowest.0 < LONGEST, "{tally:?}");
    // Enough of them get through for that to say something.
    assert!(tally.finished + tally.faulted >= 100, "{tally:?}");
    assert!(tally.faulted > 0 && !tally.refused.is_empty(), "{tally:?}");
}

#[tokio::test]
async fn twenty_reloads_at_ten_a_second_fail_no_request_though_one_in_five_is_broken() {
    let upstream = upstream::start().await;
    let (address, rhythm) = (upstream.address, Duration::from_millis(100));
    let storm = Storm { copies: 20, rhythm, rate: 100, connections: 4 };
    let storm = move || reload::run(guests::weir(), storm, address);
    let survived = tokio::task::spawn_blocking(storm).await.expect("a storm");
    assert!(survived.breaches().is_empty(), "{:?}", survived.breaches());
    assert!(survived.requests.latencies.len() > 150, "there was load: {}", survived.requests.latencies.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_rotations_of_three_pairs_under_load_fail_no_handshake() {
    let plan = Plan { rotations: 50, clients: 4, rhythm: Duration::from_millis(20) };
    let outcome = rotation::run(guests::weir(), plan).await;
    assert!(outcome.breaches(plan).is_empty(), "{:?}", outcome.breaches(plan));
}
