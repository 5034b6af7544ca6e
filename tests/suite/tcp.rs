//! TCP proxying, with and without network filters.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_tests::Setup;
use weir_tests::upstream::Upstream;
use weir_tests::wait::soon;

fn tcp(upstream: &Upstream, filters: &str) -> String {
    format!(
        "listeners: [ {{ name: plain, address: \"127.0.0.1:0\", tcp: {{ cluster: echo }}, filters: [{filters}] }} ]\n\
         clusters: [ {{ name: echo, endpoints: [\"{}\"] }} ]",
        upstream.address
    )
}

async fn exchange(socket: &mut TcpStream, text: &str) -> String {
    socket.write_all(text.as_bytes()).await.expect("the gateway takes it");
    socket.shutdown().await.expect("the gateway is there");
    let mut answer = String::new();
    soon("the answer", socket.read_to_string(&mut answer)).await.expect("the answer is text");
    answer
}

#[tokio::test]
async fn bytes_are_relayed_both_ways_and_half_closes_are_passed_on() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::new().config(tcp(&upstream, "")).start();
    let mut socket = TcpStream::connect(gateway.address("plain")).await.expect("it listens");
    assert_eq!(exchange(&mut socket, "ping").await, "ping");
    let entry = gateway.wait_for_access("\"bytes_sent\":4");
    assert_eq!(entry["upstream"], upstream.address.to_string());
    assert_eq!(entry["cluster"], "echo");
}

#[tokio::test]
async fn bulk_goes_through_unchanged_in_both_directions_at_once() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::new().config(tcp(&upstream, "")).start();
    let socket = TcpStream::connect(gateway.address("plain")).await.expect("it listens");
    let (mut read, mut write) = socket.into_split();
    let block: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
    let sent = block.clone();
    let sending = tokio::spawn(async move {
        for _ in 0..64 {
            write.write_all(&sent).await.expect("the gateway takes it");
        }
        write.shutdown().await.expect("the gateway is there");
    });
    let mut received = vec![0; block.len()];
    for _ in 0..64 {
        soon("a block", read.read_exact(&mut received)).await.expect("the echo");
        assert!(received == block, "bytes were changed");
    }
    sending.await.expect("sent");
    assert_eq!(soon("the end", read.read(&mut received)).await.expect("the end"), 0);
}

#[tokio::test]
async fn an_upstream_that_is_not_there_closes_the_connection_with_a_reason() {
    let nowhere = Upstream::nowhere().await;
    let config = format!(
        "listeners: [ {{ name: plain, address: \"127.0.0.1:0\", tcp: {{ cluster: gone }} }} ]\n\
         clusters: [ {{ name: gone, endpoints: [\"{nowhere}\"] }} ]"
    );
    let gateway = Setup::new().config(config).start();
    let mut socket = TcpStream::connect(gateway.address("plain")).await.expect("it listens");
    let mut answer = Vec::new();
    soon("the end", socket.read_to_end(&mut answer)).await.expect("closed in order");
    assert!(answer.is_empty());
    assert_eq!(gateway.wait_for_access("\"cluster\":\"gone\"")["reason"], "connect_failure");
}

#[tokio::test]
async fn a_network_filter_sees_and_changes_the_bytes_of_both_directions() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::new().plugin("tcp-tap").config(tcp(&upstream, "{ plugin: tcp-tap }")).start();
    let mut socket = TcpStream::connect(gateway.address("plain")).await.expect("it listens");
    assert_eq!(exchange(&mut socket, "ping").await, "> PING");
}

#[tokio::test]
async fn a_network_filter_holds_bytes_until_it_has_seen_enough() {
    let upstream = Upstream::echo().await;
    let filter = "{ plugin: tcp-tap, config: { until: \"!\" } }";
    let gateway = Setup::new().plugin("tcp-tap").config(tcp(&upstream, filter)).start();
    let mut socket = TcpStream::connect(gateway.address("plain")).await.expect("it listens");
    socket.set_nodelay(true).expect("a socket");
    for piece in ["a", "b", "c", "!"] {
        socket.write_all(piece.as_bytes()).await.expect("the gateway takes it");
        socket.flush().await.expect("a socket");
    }
    let mut answer = [0; 6];
    soon("the answer", socket.read_exact(&mut answer)).await.expect("the echo");
    assert_eq!(&answer, b"> ABC!");
}

#[tokio::test]
async fn a_network_filter_closes_a_connection_and_the_log_says_who_did() {
    let upstream = Upstream::echo().await;
    let filter = "{ plugin: tcp-tap, name: guard, config: { forbidden: bad } }";
    let gateway = Setup::new().plugin("tcp-tap").config(tcp(&upstream, filter)).start();
    let mut socket = TcpStream::connect(gateway.address("plain")).await.expect("it listens");
    assert_eq!(exchange(&mut socket, "bad").await, "");
    let entry = gateway.wait_for_access("closed_by_filter");
    assert_eq!(entry["filter"], "guard");
}
