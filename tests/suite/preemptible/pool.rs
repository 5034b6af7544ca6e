//! The instances of a filter whose calls give way, and the streams that share them.

use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use weir_tests::http::{get, mirror};

use super::{MILLISECOND, ask, counting, gateway, used};

/// As long as it wants to.
const UNBOUNDED: &str = "cpu: 60s, cpu_per_second: 0s, cpu_per_stream: 0s";

#[tokio::test]
async fn streams_at_the_same_time_are_spread_over_the_instances() {
    let mirror = mirror().await;
    let gateway = gateway(&format!(", scheduling: preemptible, {UNBOUNDED}"), 100 * MILLISECOND, &mirror);
    let address = gateway.address("web");
    let streams: Vec<_> = (0..8).map(|_| ask(address)).collect();
    for stream in streams {
        assert_eq!(stream.await.expect("it ends"), 200);
    }
    gateway.wait_for_log_count("an instance", 4);
    assert_eq!(used(&gateway).await["instances"], 4);
    assert_eq!(gateway.log().matches("an instance").count(), 4, "each says so once");
}

#[tokio::test]
async fn a_client_that_leaves_cuts_no_call_and_the_instance_serves_on() {
    let mirror = mirror().await;
    let filter = format!(", scheduling: preemptible, instances: 1, {UNBOUNDED}");
    let gateway = gateway(&filter, 300 * MILLISECOND, &mirror);
    let mut client = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    client.write_all(REQUEST).await.expect("the gateway takes it");
    gateway.wait_for_log("at work");
    drop(client);
    assert_eq!(gateway.wait_for_access("client_gone")["status"], serde_json::Value::Null);
    gateway.wait_for_log("it is over");
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    assert_eq!(gateway.log().matches("an instance").count(), 1, "it is the same one");
    assert!(!gateway.logged("a plugin failed"), "{}", gateway.log());
}

#[tokio::test]
async fn a_new_version_waits_for_no_call_and_ends_none() {
    let mirror = mirror().await;
    let gateway = gateway(&format!(", scheduling: preemptible, {UNBOUNDED}"), 700 * MILLISECOND, &mirror);
    let before = ask(gateway.address("web"));
    gateway.wait_for_log("at work");
    gateway.swap_plugin("busy", &counting(0, 1));
    gateway.wait_for_log("serves");
    assert_eq!(get(gateway.address("web"), "/").await.status, 200);
    assert_eq!(before.await.expect("it ends"), 200, "{}", gateway.log());
    assert!(!gateway.logged("a plugin failed"), "{}", gateway.log());
    weir_tests::wait::until("the old instances to be gone", async || {
        let plugin = gateway.plugin("busy").await;
        let instances =
            |version: &serde_json::Value| version["filters"][0]["instances"].as_u64().unwrap_or(0);
        let all: u64 = plugin["versions"].as_array()?.iter().map(instances).sum();
        (all == 4).then_some(())
    })
    .await;
}

#[tokio::test]
async fn sigterm_is_obeyed_while_a_filter_computes() {
    let mirror = mirror().await;
    // It is done within the drain.
    let short = gateway(&format!(", scheduling: preemptible, {UNBOUNDED}"), 300 * MILLISECOND, &mirror);
    let computing = ask(short.address("web"));
    short.wait_for_log("at work");
    short.signal(Signal::TERM);
    assert_eq!(computing.await.expect("it ends"), 200);
    assert!(short.wait_for_exit().success());
    assert!(short.logged("it is over"), "the guest hears of the end");
    // This one would never be done.
    let long = gateway(&format!(", scheduling: preemptible, {UNBOUNDED}"), u64::MAX >> 1, &mirror);
    let mut client = TcpStream::connect(long.address("web")).await.expect("it listens");
    client.write_all(REQUEST).await.expect("the gateway takes it");
    long.wait_for_log("at work");
    long.signal(Signal::TERM);
    assert!(long.wait_for_exit().success(), "the drain has its time, and then it is over");
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
