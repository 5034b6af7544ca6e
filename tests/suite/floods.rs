//! Floods and slow attacks, in short: `cargo xtask soak floods` has two thousand clients of each, for longer, and looks at
//! latencies. Here no neighbour may fail, nothing may be left, and nobody gets memory out of proportion.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weir_tests::guests;
use weir_tests::soak::floods::{Flood, out_of_proportion};
use weir_tests::soak::neighbours::{Plan, Subject, check_flood};
use weir_tests::soak::upstream;

const CLIENTS: usize = 200;

/// Checks some floods, and has a breach in anything but latencies fail.
async fn unharmed_by(floods: &[Flood]) {
    let upstream = upstream::start().await;
    let plan = Plan::short();
    for &flood in floods {
        let (name, address, sent) = (flood.name(), upstream.address, Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&sent);
        let check =
            move || check_flood(Subject::Weir(guests::weir()), flood, CLIENTS, plan, address, &counted);
        let outcomes = tokio::task::spawn_blocking(check).await.expect("a check");
        assert!(outcomes.silent.is_none(), "{name}: {:?}", outcomes.silent);
        let breaches: Vec<_> = outcomes.breaches.iter().filter(|breach| !breach.contains("p99")).collect();
        assert!(breaches.is_empty(), "{name}: {breaches:?}");
        assert!(outcomes.provoked >= CLIENTS, "{name}: {} attacks", outcomes.provoked);
        let memory = out_of_proportion(&outcomes, CLIENTS, sent.load(Ordering::Relaxed));
        assert!(memory.is_none(), "{name}: {memory:?}");
    }
}

#[tokio::test]
async fn clients_that_send_slowly_fail_none_of_their_neighbours() {
    unharmed_by(&[Flood::SlowHeaders, Flood::SlowBodies, Flood::Silence]).await;
}

#[tokio::test]
async fn clients_that_do_not_read_fail_none_of_their_neighbours() {
    unharmed_by(&[Flood::SlowReads, Flood::Pipelines]).await;
}

#[tokio::test]
async fn clients_that_send_a_great_deal_fail_none_of_their_neighbours() {
    unharmed_by(&[Flood::Headers, Flood::TinyChunks, Flood::Connections]).await;
}
