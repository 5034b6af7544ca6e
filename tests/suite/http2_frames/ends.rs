//! How connections and streams end: what was answered arrives though the client still sends, and what cannot be answered
//! ends alone.

use std::sync::atomic::Ordering;

use tokio::net::TcpSocket;
use weir_tests::Setup;
use weir_tests::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, Fate, GOAWAY, HEADERS, PING, Peer, block, frame, get, setting, window,
};

use super::{begin, counted, gateway, open, wait_counted};
use crate::strictness::Recorder;

/// The fields of a CONNECT.
const CONNECT: [(&str, &str); 2] = [(":method", "CONNECT"), (":authority", "a:443")];

#[tokio::test]
async fn what_was_answered_last_arrives_though_the_client_goes_on_to_send() {
    const SIZE: usize = 12 << 10;
    let config = format!(
        "runtime: {{ workers: 1 }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ idle_timeout: 100ms, max_control_frames: 0, \
           routes: [ {{ match: {{ path: /large }}, respond: {{ status: 200, body: {} }} }}, {{ respond: {{ status: 200 }} }} ] }} }} ]",
        "a".repeat(SIZE)
    );
    let gateway = Setup::new().config(config).start();
    // The client takes little at a time: most of what it is sent waits on Weir's side.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(1).expect("a socket");
    let mut peer = Peer::begin(socket.connect(gateway.address("web")).await.expect("it listens")).await;
    peer.send(&[setting(4, 1 << 20), window(0, 1 << 20)].concat()).await;
    // It is told to go once nothing is asked for, and asked whether it has heard.
    let mut told = false;
    let asked = loop {
        let frame = peer.next().await.expect("the connection goes on");
        told |= frame.kind == GOAWAY;
        if frame.kind == PING && frame.flags & ACK == 0 {
            assert!(told, "a GOAWAY first");
            break frame.payload;
        }
    };
    peer.send(&get(1, "/large")).await;
    gateway.wait_for_access("/large");
    // It has heard; and it sends more than Weir reads at a time, of frames that mean nothing.
    let small = frame(0xfa, 0, 0, &[]).repeat(200);
    let large = frame(0xfa, 0, 0, &[0; 16_000]).repeat(6);
    peer.send(&[frame(PING, ACK, 0, &asked), small, large].concat()).await;
    let (mut came, mut ended, mut last) = (0, false, None);
    while let Some(frame) = peer.next().await {
        match frame.kind {
            DATA => {
                came += frame.payload.len();
                ended |= frame.flags & END_STREAM != 0;
            }
            GOAWAY => last = Some(frame.payload[..4].to_vec()),
            _ => {}
        }
    }
    assert_eq!((came, ended), (SIZE, true), "all of the answer");
    assert_eq!(last, Some(vec![0, 0, 0, 1]), "and which stream was the last");
}

#[tokio::test]
async fn a_connect_with_a_body_is_refused_alone_and_counted() {
    let recorder = Recorder::new().await;
    let gateway = gateway(&recorder.upstream, "");
    for listener in ["web", "tls"] {
        let mut peer = begin(&gateway, listener).await;
        let fields = [&CONNECT[..], &[("content-length", "3")]].concat();
        let connect = |stream| frame(HEADERS, END_HEADERS, stream, &block(&fields));
        // Two of them in one piece, and a request that is none of them.
        let healthy = frame(
            HEADERS,
            END_STREAM | END_HEADERS,
            5,
            &block(&[(":method", "GET"), (":scheme", "ftp"), (":path", "/"), (":authority", "a")]),
        );
        peer.send(&[connect(1), frame(DATA, END_STREAM, 1, b"abc"), connect(3), healthy].concat()).await;
        let mut fates = Vec::new();
        while fates.len() < 3 {
            let frame = peer.next().await.expect("the connection goes on");
            match (frame.kind, frame.stream) {
                (3, stream) => fates.push((stream, Fate::Reset(2))),
                (HEADERS, stream) => fates.push((stream, Fate::Status(0))),
                (GOAWAY, _) => panic!("the connection ends"),
                _ => {}
            }
        }
        fates.sort_by_key(|(stream, _)| *stream);
        assert_eq!(fates, [(1, Fate::Reset(2)), (3, Fate::Reset(2)), (5, Fate::Status(0))]);
        assert!(peer.is_alive().await, "the connection goes on");
        wait_counted(&gateway, listener, "connect_refused", 2).await;
        // One that announces no body is answered.
        peer.send(&frame(HEADERS, END_HEADERS, 7, &block(&CONNECT))).await;
        assert_eq!(peer.fate(7).await, Fate::Status(405));
        wait_counted(&gateway, listener, "connect_refused", 3).await;
    }
    assert_eq!(recorder.connections.load(Ordering::SeqCst), 0, "the upstream saw nothing");
}

#[tokio::test]
async fn a_flood_of_connects_with_a_body_ends_the_connection_for_a_reason() {
    let recorder = Recorder::new().await;
    let gateway = gateway(&recorder.upstream, "max_stream_errors: 20,");
    let mut peer = open(&gateway, "web").await;
    let fields = [&CONNECT[..], &[("content-length", "3")]].concat();
    let flood: Vec<u8> =
        (0..60).flat_map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, &block(&fields))).collect();
    peer.send(&[weir_tests::frames::PREFACE, &frame(4, 0, 0, &[]), &flood].concat()).await;
    let (code, _) = peer.end().await.expect("a GOAWAY");
    assert_eq!(code, 11, "ENHANCE_YOUR_CALM");
    wait_counted(&gateway, "web", "http2_too_many_stream_errors", 1).await;
    assert!(counted(&gateway, "web", "connect_refused").await >= 20);
}
