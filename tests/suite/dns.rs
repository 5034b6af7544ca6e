//! Endpoints that are DNS names.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use weir_tests::Setup;
use weir_tests::http::{Client, full, upstream};
use weir_tests::upstream::background;
use weir_tests::wait::until;

/// A name server that answers every A question with the same addresses, valid for a second; with none it fails.
pub async fn name_server(answers: Arc<Mutex<Vec<Ipv4Addr>>>) -> SocketAddr {
    let (tell, told) = tokio::sync::oneshot::channel();
    background().spawn(async move {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        tell.send(socket.local_addr().expect("an address")).expect("the test waits");
        let mut packet = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut packet).await {
            let answer = answer(&packet[..len], &answers.lock().expect("nobody panics here"));
            let _ = socket.send_to(&answer, from).await;
        }
    });
    told.await.expect("the server starts")
}

/// A reply to one question (RFC 1035 section 4).
fn answer(query: &[u8], addresses: &[Ipv4Addr]) -> Vec<u8> {
    let name_end = query[12..].iter().position(|byte| *byte == 0).expect("a name") + 12;
    let question = &query[12..name_end + 5];
    let is_a = query[name_end + 1..name_end + 3] == [0, 1];
    let answers: &[Ipv4Addr] = if is_a { addresses } else { &[] };
    let failed = addresses.is_empty();
    let mut reply = query[..2].to_vec();
    reply.extend_from_slice(&[
        0x81,
        if failed { 0x82 } else { 0x80 },
        0,
        1,
        0,
        answers.len() as u8,
        0,
        0,
        0,
        0,
    ]);
    reply.extend_from_slice(question);
    for address in answers {
        reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        reply.extend_from_slice(&address.octets());
    }
    reply
}

#[tokio::test]
async fn names_are_resolved_again_by_ttl_and_the_last_answer_outlives_a_failure() {
    // One port on two addresses of the loopback network: what differs is only what the name stands for.
    let one = upstream(|_| async { http::Response::new(full("one")) }).await;
    let answers = Arc::new(Mutex::new(vec![Ipv4Addr::LOCALHOST]));
    let server = name_server(Arc::clone(&answers)).await;
    let config = format!(
        "runtime: {{ workers: 1, dns_servers: [\"{server}\"] }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"api.test.example:{}\"], connect_timeout: 1s }} ]",
        one.address.port()
    );
    let gateway = Setup::new().config(config).start();
    let mut client = Client::h1(gateway.address("web")).await;
    assert_eq!(client.get("/").await.text(), "one");
    answers.lock().expect("nobody panics here").clear();
    gateway.wait_for_log("cannot be resolved, the last answer stays in force");
    assert_eq!(client.get("/").await.text(), "one");
    // Nobody listens there.
    *answers.lock().expect("nobody panics here") = vec![Ipv4Addr::new(127, 0, 0, 77)];
    gateway.wait_for_log("the endpoints have changed");
    let status = until("the new answer to be in force", async || {
        let status = client.get("/").await.status;
        (status != 200).then_some(status)
    })
    .await;
    assert_eq!(status, 503);
}

#[tokio::test]
async fn a_name_that_never_resolved_has_no_endpoints_and_everything_else_serves() {
    let server = name_server(Arc::default()).await;
    let config = format!(
        "runtime: {{ workers: 1, dns_servers: [\"{server}\"] }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ \
           {{ match: {{ path: /ok }}, respond: {{ status: 200 }} }}, {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"api.test.example:80\"] }} ]"
    );
    let gateway = Setup::new().config(config).start();
    let mut client = Client::h1(gateway.address("web")).await;
    assert_eq!(client.get("/ok").await.status, 200);
    assert_eq!(client.get("/").await.status, 503);
    assert_eq!(gateway.wait_for_access("no_endpoints")["cluster"], "up");
}
