//! Short forms of the long runs that `cargo xtask soak` makes of random modules, of reloads, of rotations, of upstreams
//! that are killed, of idle connections, and of answers that are odd.

use std::time::Duration;

use weir_tests::soak::idle::{self, Proxy};
use weir_tests::soak::pairing::{self, odd};
use weir_tests::soak::reload::{self, Storm};
use weir_tests::soak::rotation::{self, Plan};
use weir_tests::soak::{modules, upstream, upstream_kills};
use weir_tests::{Setup, guests};

/// How long one module may take to be compiled and to use up all of its budgets, on a machine that is busy.
const LONGEST: Duration = Duration::from_secs(30);

/// What an idle TLS connection may take in a debug build, in KiB, when there are few of them and the allocator has pages half in
/// use. The long run states it.
const IDLE_KIB: f64 = 40.0;

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

#[tokio::test]
async fn nine_upstreams_that_are_killed_cost_no_request_that_may_be_repeated() {
    let rhythm = Duration::from_millis(100);
    let plan = upstream_kills::Plan { kills: 9, rhythm, rate: 200, connections: 8 };
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_soak"));
    let run = move || upstream_kills::run(guests::weir(), program, plan);
    let survived = tokio::task::spawn_blocking(run).await.expect("a run");
    let requests = &survived.requests;
    assert_eq!(requests.failed(), 0, "{:?}\n{}", requests.failures, survived.log);
    assert!(requests.latencies.len() > 100, "there was load: {}", requests.latencies.len());
    assert!(survived.retries > 0.0, "nobody noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_five_thousand_answers_of_an_odd_upstream_none_goes_to_another_request() {
    let crossed = odd::Crossed::default();
    let (one, other) = (odd::start(&crossed).await, odd::start(&crossed).await);
    let gateway = Setup::new().config(pairing::config(&[one.address, other.address])).start();
    let tally = pairing::run(gateway.address("web"), 5_000, 16, pairing::PATIENCE, &crossed).await;
    assert!(tally.wrong.is_empty(), "{:?}", tally.wrong);
    assert!(tally.count() >= 5_000 && tally.paired > tally.count() / 2, "{tally:?}");
    // Without anybody between, the same clients are given what they did not ask for: they would see it.
    let tally = pairing::run(one.address, 200, 2, Duration::from_secs(1), &crossed).await;
    assert!(tally.wrong.iter().any(|wrong| wrong.contains("answered by surplus")), "{tally:?}");
}

#[tokio::test]
async fn three_hundred_idle_tls_connections_are_all_answered_again_and_take_little_each() {
    let upstream = upstream::start().await;
    let plan = idle::Plan { connections: 300, held: Duration::ZERO };
    let outcome = idle::run(Proxy::Weir(guests::weir()), plan, upstream.address).await;
    assert_eq!((outcome.opened, outcome.kept), (300, 300), "{:?}", outcome.failures);
    assert!(outcome.kib_each() < IDLE_KIB, "{} KiB each", outcome.kib_each());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_rotations_of_three_pairs_under_load_fail_no_handshake() {
    let plan = Plan { rotations: 50, clients: 4, rhythm: Duration::from_millis(20) };
    let outcome = rotation::run(guests::weir(), plan).await;
    assert!(outcome.breaches(plan).is_empty(), "{:?}", outcome.breaches(plan));
}
