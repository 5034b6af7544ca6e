//! The short form of the reload storm that `cargo xtask soak reload` makes.

use std::time::Duration;

use weir_tests::guests;
use weir_tests::soak::reload::{self, Storm};
use weir_tests::soak::upstream;

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
