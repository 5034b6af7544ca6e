//! Floods and slow attacks, in short: `cargo xtask soak floods` has two thousand clients of each, for longer, and looks at
//! latencies. Here no neighbour may fail, nothing may be left, and nobody gets memory out of proportion.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use weir::overload::descriptors::MOST;
use weir_tests::soak::floods::{Flood, Offered, Rush, out_of_proportion};
use weir_tests::soak::neighbours::{Plan, Subject, check_flood};
use weir_tests::soak::upstream;
use weir_tests::{Setup, guests};

const CLIENTS: usize = 200;

/// Checks some floods, and has a breach in anything but latencies fail.
async fn unharmed_by(floods: &[Flood]) {
    let upstream = upstream::start().await;
    let plan = Plan::short();
    for &flood in floods {
        let (name, address, offered) = (flood.name(), upstream.address, Arc::new(Offered::default()));
        let counted = Arc::clone(&offered);
        // On a machine that is busy, a flood that stands back would not be one.
        let rush = Rush { clients: CLIENTS, spread: Duration::from_millis(200), stands_back: false };
        let check = move || {
            check_flood(Subject::Weir(guests::weir()), (flood, rush), plan, (address, None), &counted)
        };
        let outcomes = tokio::task::spawn_blocking(check).await.expect("a check");
        assert!(outcomes.silent.is_none(), "{name}: {:?}", outcomes.silent);
        let breaches: Vec<_> = outcomes.breaches.iter().filter(|breach| !breach.contains("p99")).collect();
        assert!(breaches.is_empty(), "{name}: {breaches:?}");
        assert!(outcomes.provoked >= CLIENTS, "{name}: {} attacks", outcomes.provoked);
        let memory = out_of_proportion(&outcomes, CLIENTS, offered.bytes.load(Ordering::Relaxed));
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

#[tokio::test]
async fn the_table_of_descriptors_is_from_the_start_as_large_as_it_becomes() {
    let web = "{ name: web, address: \"127.0.0.1:0\", http: { routes: [ { respond: { status: 200 } } ] } }";
    let gateway = Setup::new().config(format!("listeners: [ {web} ]")).start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("it runs");
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")?.trim().parse::<u64>().ok());
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(MOST);
    assert!(size.is_some_and(|size| size >= limit.min(MOST)), "{size:?}, of {limit}");
}
