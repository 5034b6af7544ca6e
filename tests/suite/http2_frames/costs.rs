//! What little a client costs that takes nothing, or sends little that becomes much: memory stays in proportion to what
//! was sent, and deadlines end it.

use weir_tests::frames::{
    DATA, END_HEADERS, END_STREAM, Fate, HEADERS, RST_STREAM, block, frame, get, integer, setting, window,
};
use weir_tests::wait::until;

use super::floods::{CALM, Counting, beside, cut_off};
use super::{begin, gateway, wait_counted};

/// What a test leaves the gateway as slack: pages that an allocator keeps, and what is compiled lazily.
const SLACK: u64 = 8 << 20;

#[tokio::test]
async fn a_client_that_never_opens_its_window_costs_little_and_is_cut_off() {
    let counting = Counting::new().await;
    for http in [
        // Too slow.
        "min_response_body_rate: 1MiB, body_rate_grace_period: 300ms,",
        // Nothing moves.
        "min_response_body_rate: 0, stream_idle_timeout: 300ms,",
    ] {
        let gateway = gateway(&counting.upstream, http);
        let before = gateway.resident();
        let mut peer = begin(&gateway, "web").await;
        let requests: Vec<u8> = (0..100).flat_map(|n| get(2 * n + 1, "/large")).collect();
        let resident = beside(&gateway, async {
            peer.send(&[setting(4, 0), requests].concat()).await;
            let (mut answered, mut cut, mut resident) = (0, 0, 0);
            while cut < 100 {
                let frame = peer.next().await.expect("the connection goes on");
                resident = resident.max(gateway.resident());
                answered += usize::from(frame.kind == HEADERS);
                cut += usize::from(frame.kind == RST_STREAM);
                assert_ne!((frame.kind, frame.payload.is_empty()), (DATA, false), "no window");
            }
            assert_eq!(answered, 100);
            resident
        })
        .await;
        // 256 KiB each would be 25 MiB, were they all here: a stream holds what its pipe does.
        assert!(
            resident.saturating_sub(before) < SLACK + 100 * (160 << 10),
            "{} KiB more",
            (resident - before) >> 10
        );
        assert!(peer.is_alive().await);
    }
}

#[tokio::test]
async fn answers_that_are_not_taken_end_the_connection_when_nothing_else_is_asked() {
    let counting = Counting::new().await;
    let gateway = gateway(&counting.upstream, "stream_idle_timeout: 300ms,");
    let mut peer = begin(&gateway, "web").await;
    // A byte of the answer is taken, which is all in h2's hands then.
    peer.send(&[setting(4, 1), get(1, "/")].concat()).await;
    assert_eq!(peer.fate(1).await, Fate::Status(200));
    cut_off(&gateway, &mut peer, "http2_answers_not_taken").await;
}

#[tokio::test]
async fn a_window_that_is_opened_byte_by_byte_is_served_and_tiny_data_reaches_the_upstream_whole() {
    let counting = Counting::new().await;
    let gateway = gateway(&counting.upstream, "");
    let mut peer = begin(&gateway, "web").await;
    peer.send(&[setting(4, 0), get(1, "/")].concat()).await;
    assert_eq!(peer.fate(1).await, Fate::Status(200));
    let mut body = Vec::new();
    while body.len() < 8 {
        peer.send(&window(1, 1)).await;
        let frame = peer.next().await.expect("the connection goes on");
        if frame.kind == DATA {
            assert_eq!(frame.payload.len(), 1);
            body.extend(frame.payload);
        }
    }
    assert_eq!(body, b"answered");
    // 20,000 frames with a byte each, at the pace at which they are taken.
    let mut peer = begin(&gateway, "web").await;
    let head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/body"),
        (":authority", "a"),
        ("content-length", "20001"),
    ];
    let before = (counting.starts(), gateway.resident());
    let fate = beside(&gateway, async {
        peer.send(&frame(HEADERS, END_HEADERS, 1, &block(&head))).await;
        let asked = async || (counting.starts() > before.0).then_some(());
        until("the upstream to be asked", asked).await;
        for _ in 0..40 {
            peer.send(&frame(DATA, 0, 1, b"x").repeat(500)).await;
            assert!(peer.is_alive().await);
        }
        peer.send(&frame(DATA, END_STREAM, 1, b"x")).await;
        peer.fate(1).await
    })
    .await;
    assert_eq!(fate, Fate::Status(200));
    assert!(gateway.resident().saturating_sub(before.1) < SLACK + 100 * peer.sent as u64);
}

#[tokio::test]
async fn an_hpack_bomb_costs_no_more_than_a_hundred_times_what_was_sent() {
    let counting = Counting::new().await;
    let gateway = gateway(&counting.upstream, "");
    let before = gateway.resident();
    // A field of 4,000 bytes goes into the table, from where a byte calls it.
    let plain = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/held"), (":authority", "a")]);
    let bomb = [&[0x40][..], &integer(0, 7, 1), b"x", &integer(0, 7, 4_000), &[b'a'; 4_000]].concat();
    let under = [plain.clone(), vec![0xbe; 13]].concat();
    let mut sent = 0;
    let mut peers = Vec::new();
    let resident = beside(&gateway, async {
        for _ in 0..4 {
            let mut peer = begin(&gateway, "web").await;
            let starts = counting.starts();
            peer.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &[plain.clone(), bomb.clone()].concat()))
                .await;
            peer.send(
                &(1..100)
                    .flat_map(|n| frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &under))
                    .collect::<Vec<u8>>(),
            )
            .await;
            let all = async || (counting.starts() == starts + 100).then_some(());
            until("the upstream to be asked by every stream", all).await;
            sent += peer.sent;
            peers.push(peer);
        }
        gateway.resident()
    })
    .await;
    let more = resident.saturating_sub(before);
    assert!(more < SLACK + 100 * sent as u64, "{} KiB more for {} KiB", more >> 10, sent >> 10);
    // Larger than may be is answered by 431, and far larger ends the connection.
    for (times, fate) in [(20, Fate::Status(431)), (200, Fate::GoAway(CALM))] {
        let mut peer = begin(&gateway, "web").await;
        peer.send(&frame(
            HEADERS,
            END_STREAM | END_HEADERS,
            1,
            &[plain.clone(), bomb.clone(), vec![0xbe; times]].concat(),
        ))
        .await;
        assert_eq!(peer.fate(1).await, fate, "{times}");
    }
    wait_counted(&gateway, "web", "http2_header_list_too_large", 1).await;
    counting.answer.send(true).expect("the upstream waits");
}
