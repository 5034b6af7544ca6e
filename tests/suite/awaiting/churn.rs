//! Streams that come and go while what they await is under way: nothing of them is left, in the guest or in the host.

use std::time::Duration;

use tokio::task::JoinSet;
use weir_tests::http::{Client, empty};
use weir_tests::wait::soon;

use super::Bench;

/// Streams of one wave.
const WAVE: usize = 200;

/// Waves before anything is measured.
const WARM: usize = 4;

/// How many streams there are: `WEIR_CHURN` says it, as in `WEIR_CHURN=10000`.
fn streams() -> usize {
    std::env::var("WEIR_CHURN").ok().and_then(|streams| streams.parse().ok()).unwrap_or(2000)
}

/// Sends a wave of streams that await a call, cuts every other one, and has the calls answered.
async fn wave(bench: &mut Bench) {
    let address = bench.gateway.address("web");
    let (mut cut, mut kept) = (JoinSet::new(), JoinSet::new());
    // Each connection is a client of its own; a stream that is cut is reset.
    for _ in 0..4 {
        let client = Client::h2(address).await;
        let Client::H2(sender) = client else { panic!("HTTP/2 was asked for") };
        for number in 0..WAVE / 4 {
            let mut client = Client::H2(sender.clone());
            let request = client.request("GET", "/path").header("x-await", "held").body(empty());
            let request = request.expect("a request");
            let set = if number % 2 == 0 { &mut cut } else { &mut kept };
            set.spawn(async move { client.call(request).await.map(|answer| answer.status.as_u16()) });
        }
    }
    for _ in 0..WAVE {
        soon("a call", bench.never.recv()).await.expect("it is made");
    }
    cut.shutdown().await;
    // Their ends come to the filter before their answers do, or after: both are to be seen.
    let late = bench.go.send(());
    assert_eq!(late.expect("calls wait"), WAVE, "no call is lost, and no stream's end takes one away");
    while let Some(status) = soon("an answer", kept.join_next()).await {
        assert_eq!(status.expect("no panic").expect("an answer"), 200);
    }
}

/// What is left in the guest: futures, and pages of memory.
async fn left(bench: &Bench) -> (usize, usize) {
    let mut client = Client::h1(bench.gateway.address("web")).await;
    let request = client.request("GET", "/path").header("x-await", "left").body(empty());
    let answer = client.call(request.expect("a request")).await.expect("an answer").header("x-asked");
    let numbers: Vec<usize> = answer.split(' ').filter_map(|word| word.parse().ok()).collect();
    (numbers[0], numbers[1])
}

#[tokio::test]
async fn streams_that_are_cut_while_they_await_a_call_leave_nothing_behind() {
    // A call or a stream that were kept would soon be one too many.
    let limits = format!(
        "calls: {0}, calls_at_once: {0}, streams: {0}, log_lines: 1000000, cpu: 50ms, \
         cpu_per_second: 0s, long_calls_per_second: 0s",
        WAVE + 50
    );
    let mut bench = Bench::new("awaits", &limits).await;
    for _ in 0..WARM {
        wave(&mut bench).await;
    }
    let nothing_waits = async || (left(&bench).await.0 == 0).then_some(());
    weir_tests::wait::until("the end of the futures", nothing_waits).await;
    let ((_, pages), resident) = (left(&bench).await, bench.gateway.resident());
    for _ in WARM..streams().div_ceil(WAVE) {
        wave(&mut bench).await;
    }
    // What comes in the end is told in its time.
    tokio::time::timeout(Duration::from_secs(30), async { while left(&bench).await.0 > 0 {} })
        .await
        .expect("no future is left");
    // How many streams wait at once is a matter of time, and so is a page more or less. What each of a thousand left behind, a
    // future of some hundred bytes, would be more.
    let (futures, now) = left(&bench).await;
    assert_eq!(futures, 0);
    assert!(now < pages + 3, "the guest has {now} pages, and had {pages} after the first waves");
    let grown = bench.gateway.resident().saturating_sub(resident);
    println!(
        "{} streams, half of them cut: {now} pages in the guest, {pages} after the first of them, {grown} bytes more in the host",
        streams()
    );
    // An allocator keeps what it has had. Ten thousand streams that were kept, with a call each, would be much more.
    assert!(grown < 24 << 20, "the host has grown by {grown} bytes");
    assert!(
        !bench.gateway.logged("could not go on"),
        "nothing is asked for on behalf of a stream that is gone"
    );
    assert!(!bench.gateway.logged("WARN"), "nothing was refused: {}", bench.gateway.log());
}
