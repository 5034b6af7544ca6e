//! TCP proxying, with and without network filters.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_tests::guests::wat;
use weir_tests::http::Client;
use weir_tests::upstream::Upstream;
use weir_tests::wait::{soon, until};
use weir_tests::{Gateway, Setup};

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

/// A filter that wants no data, and closes the connection that came last from its timer after a few ticks.
const CLOSER: &str = r#"(module
    (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
    (import "env" "proxy_set_effective_context" (func $act_on (param i32) (result i32)))
    (import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "a connection")
    (global $stream (mut i32) (i32.const 0))
    (global $ticks (mut i32) (i32.const 0))
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "malloc") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_vm_start") (param i32 i32) (result i32)
        (drop (call $tick (i32.const 20))) (i32.const 1))
    (func (export "proxy_on_new_connection") (param $id i32) (result i32)
        (drop (call $log (i32.const 2) (i32.const 100) (i32.const 12)))
        (global.set $stream (local.get $id)) (global.set $ticks (i32.const 0)) (i32.const 0))
    (func (export "proxy_on_tick") (param i32)
        (global.set $ticks (i32.add (global.get $ticks) (i32.const 1)))
        (if (i32.and (i32.ne (global.get $stream) (i32.const 0)) (i32.gt_u (global.get $ticks) (i32.const 5)))
            (then
                (drop (call $act_on (global.get $stream)))
                (drop (call $close (i32.const 2)))
                (global.set $stream (i32.const 0))))))"#;

#[tokio::test]
async fn a_filter_that_wants_no_data_closes_connections_from_its_timer() {
    let upstream = Upstream::echo().await;
    let setup = || Setup::new().plugin_bytes("closer", &wat(CLOSER));
    // Relayed, on its way to an endpoint that does not answer, and as HTTP.
    let gateway = setup().config(tcp(&upstream, "{ plugin: closer }")).start();
    let mut socket = TcpStream::connect(gateway.address("plain")).await.expect("it listens");
    closes(&gateway, &mut socket).await;
    let deaf = tokio::net::TcpSocket::new_v4().expect("a socket");
    deaf.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let deaf = deaf.listen(1).expect("it listens");
    let address = deaf.local_addr().expect("an address");
    let _first = TcpStream::connect(address).await.expect("there is room");
    let _second = TcpStream::connect(address).await.expect("there is room");
    let unreachable =
        tcp(&upstream, "{ plugin: closer }").replace(&upstream.address.to_string(), &address.to_string());
    let gateway = setup().config(unreachable).start();
    let mut socket = TcpStream::connect(gateway.address("plain")).await.expect("it listens");
    closes(&gateway, &mut socket).await;
    let http = "listeners: [ { name: plain, address: \"127.0.0.1:0\", filters: [ { plugin: closer } ], \
                http: { routes: [ { respond: { status: 200 } } ] } } ]";
    let gateway = setup().config(http).start();
    let mut client = Client::h1(gateway.address("plain")).await;
    assert_eq!(client.get("/").await.status, 200);
    let Client::H1(client) = client else { panic!("HTTP/1") };
    until("the end of the connection", async || client.is_closed().then_some(())).await;
    gateway.wait_for_log("reason=\"closed_by_filter\"");
}

async fn closes(gateway: &Gateway, socket: &mut TcpStream) {
    let mut rest = Vec::new();
    // In order or by a reset.
    let _ = soon("the end of the connection", socket.read_to_end(&mut rest)).await;
    let entry = gateway.wait_for_access("closed_by_filter");
    assert_eq!(entry["filter"], "closer");
}
