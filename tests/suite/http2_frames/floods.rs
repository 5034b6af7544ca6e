//! Floods: what gets nothing done is cut off, counted by reason and told to the client, while others are served. None
//! reaches an upstream as more than a bounded number of requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::watch;
use weir_tests::Gateway;
use weir_tests::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Fate, HEADERS, PING, PREFACE, PRIORITY, Peer, SETTINGS,
    block, field, frame, get, request, reset, setting, window,
};
use weir_tests::http::{Client, full, upstream};
use weir_tests::upstream::Upstream;
use weir_tests::wait::{soon, until};

use super::{begin, counted, gateway, open, wait_counted};

/// ENHANCE_YOUR_CALM (RFC 9113 section 7).
pub const CALM: u32 = 11;

/// An upstream that answers `/held` when it is told to, `/body` when all of the body is there, `/large` with 256 KiB, and
/// others at once. It counts what it is asked but for `/clean`.
pub struct Counting {
    pub upstream: Upstream,
    starts: Arc<AtomicUsize>,
    pub answer: watch::Sender<bool>,
}

impl Counting {
    pub async fn new() -> Self {
        let starts = Arc::new(AtomicUsize::new(0));
        let (answer, told) = watch::channel(false);
        let counted = Arc::clone(&starts);
        let upstream = upstream(move |request: Request<Incoming>| {
            let path = request.uri().path().to_owned();
            if path != "/clean" {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            let mut told = told.clone();
            async move {
                if path == "/body" {
                    request.into_body().collect().await.expect("all of it");
                }
                if path == "/held" {
                    told.wait_for(|told| *told).await.expect("the test says so");
                }
                Response::new(full(if path == "/large" {
                    vec![b'x'; 256 << 10]
                } else {
                    b"answered".to_vec()
                }))
            }
        });
        Self { upstream: upstream.await, starts, answer }
    }

    pub fn starts(&self) -> usize {
        self.starts.load(Ordering::SeqCst)
    }
}

/// Does something while a client on a connection of its own asks again and again, and is answered.
pub async fn beside<T>(gateway: &Gateway, work: impl Future<Output = T>) -> T {
    let mut client = Client::h2(gateway.address("web")).await;
    let clean = async {
        loop {
            assert_eq!(client.get("/clean").await.status, 200, "for whoever does no harm");
        }
    };
    let done = tokio::select! {
        () = clean => unreachable!("it asks until the work is done"),
        done = work => done,
    };
    assert_eq!(client.get("/clean").await.status, 200, "for whoever does no harm");
    done
}

/// Whether a flood was cut off: with this reason in the GOAWAY, or h2's word for it, and in the metric.
pub async fn cut_off(gateway: &Gateway, peer: &mut Peer, reason: &str) {
    let (code, text) = soon("the end", peer.end()).await.expect("a GOAWAY");
    assert_eq!(code, CALM, "{reason}: {text}");
    wait_counted(gateway, "web", reason, 1).await;
    gateway.wait_for_log(&format!("reason=\"{reason}\""));
}

#[tokio::test]
async fn a_rapid_reset_is_cut_off_within_50_streams_and_the_upstream_sees_no_more_than_those() {
    let counting = Counting::new().await;
    // All at once.
    let gateway = gateway(&counting.upstream, "");
    let mut peer = begin(&gateway, "web").await;
    let flood: Vec<u8> =
        (0..500).flat_map(|n| [get(2 * n + 1, "/held"), reset(2 * n + 1, 8)].concat()).collect();
    beside(&gateway, async {
        peer.send(&flood).await;
        cut_off(&gateway, &mut peer, "http2_too_many_resets").await;
    })
    .await;
    assert!(counting.starts() <= 50, "{} requests reached the upstream", counting.starts());
    // One after the other, each when the one before has reached the upstream.
    let before = counting.starts();
    let mut peer = begin(&gateway, "web").await;
    let mut streams = 0;
    beside(&gateway, async {
        loop {
            let stream = 2 * streams + 1;
            if streams > 60 || !peer.send(&get(stream, "/held")).await {
                break;
            }
            streams += 1;
            let reached = async || (counting.starts() >= before + streams as usize).then_some(());
            until("the upstream to be asked", reached).await;
            peer.send(&reset(stream, 8)).await;
            if streams == 50 {
                break;
            }
            assert!(peer.is_alive().await, "after {streams} streams");
        }
        let (code, text) = soon("the end", peer.end()).await.expect("a GOAWAY");
        assert_eq!((code, text.as_str(), streams), (CALM, "http2_too_many_resets", 50));
    })
    .await;
    assert_eq!(counting.starts(), before + 50);
    wait_counted(&gateway, "web", "http2_too_many_resets", 2).await;
}

#[tokio::test]
async fn a_client_that_lets_as_much_be_answered_as_it_resets_is_not_cut_off() {
    let counting = Counting::new().await;
    let gateway = gateway(&counting.upstream, "");
    let mut peer = begin(&gateway, "web").await;
    for n in 0..200 {
        peer.send(&[get(4 * n + 1, "/held"), reset(4 * n + 1, 8), get(4 * n + 3, "/")].concat()).await;
        // The end of the answer.
        let ended = async {
            while let Some(frame) = peer.next().await {
                if frame.stream == 4 * n + 3 && frame.flags & END_STREAM != 0 {
                    return true;
                }
            }
            false
        };
        assert!(ended.await, "after {n} resets");
    }
    assert!(peer.is_alive().await);
}

#[tokio::test]
async fn floods_of_frames_that_get_nothing_done_are_cut_off() {
    let counting = Counting::new().await;
    let post = [(":method", "POST"), (":scheme", "http"), (":path", "/held"), (":authority", "a")];
    // A stream, a header block that does not end, and nothing.
    let open = frame(HEADERS, END_HEADERS, 1, &block(&post));
    let half = frame(HEADERS, END_STREAM, 1, &block(&post));
    let none = Vec::new();
    let settings: Vec<u8> = [setting(4, 0), setting(4, 65_535)].concat();
    for (what, before, frame, times, reason) in [
        ("CONTINUATION", &half, frame(CONTINUATION, 0, 1, &[]), 1_000, "http2_too_many_continuations"),
        (
            "CONTINUATION of some",
            &half,
            frame(CONTINUATION, 0, 1, &field(b"x", &[b'a'; 1000])),
            1_000,
            "http2_too_many_continuations",
        ),
        ("PING", &none, frame(PING, 0, 0, &[0; 8]), 20_000, "http2_too_many_control_frames"),
        (
            "PING that acknowledges nothing",
            &none,
            frame(PING, 1, 0, &[0; 8]),
            20_000,
            "http2_too_many_control_frames",
        ),
        ("SETTINGS", &none, frame(SETTINGS, 0, 0, &[]), 20_000, "http2_too_many_control_frames"),
        ("SETTINGS that change windows", &open, settings, 20_000, "http2_too_many_control_frames"),
        ("PRIORITY", &none, frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), 20_000, "http2_too_many_control_frames"),
        ("WINDOW_UPDATE", &none, window(0, 1), 20_000, "http2_too_many_control_frames"),
        ("WINDOW_UPDATE of a stream", &open, window(1, 1), 20_000, "http2_too_many_control_frames"),
        ("frames that nobody knows", &none, frame(0xfa, 0, 0, &[]), 20_000, "http2_too_many_control_frames"),
        ("empty DATA", &open, frame(DATA, 0, 1, &[]), 20_000, "http2_too_many_data_frames"),
        (
            "empty DATA with padding",
            &open,
            frame(DATA, 8, 1, &[3, 0, 0, 0]),
            10_000,
            "http2_too_many_data_frames",
        ),
    ] {
        let gateway = gateway(&counting.upstream, "");
        let mut peer = begin(&gateway, "web").await;
        beside(&gateway, async {
            assert!(peer.send(before).await, "{what}");
            // A hundred at a time.
            peer.flood(&frame.repeat(100), times / 100).await;
            cut_off(&gateway, &mut peer, reason).await;
        })
        .await;
    }
}

#[tokio::test]
async fn what_floods_and_how_much_may_be_malformed_is_a_matter_of_configuration() {
    let counting = Counting::new().await;
    let tight =
        gateway(&counting.upstream, "max_stream_resets: 3, max_control_frames: 20, max_stream_errors: 2,");
    let pings = |count| frame(PING, 0, 0, &[0; 8]).repeat(count);
    let resets =
        |count| (0..count).flat_map(|n| [get(2 * n + 1, "/held"), reset(2 * n + 1, 8)].concat()).collect();
    let malformed = |count| (0..count).flat_map(|n| request(2 * n + 1, &[(":method", "GET")])).collect();
    let floods: [(Vec<u8>, Vec<u8>, &str); 3] = [
        // The settings of the beginning and the ping that asks are two more.
        (pings(18), pings(30), "http2_too_many_control_frames"),
        (resets(2), resets(3), "http2_too_many_resets"),
        (malformed(1), malformed(3), "http2_too_many_stream_errors"),
    ];
    for (little, much, reason) in &floods {
        let mut peer = begin(&tight, "web").await;
        peer.send(little).await;
        assert!(peer.is_alive().await, "{reason}");
        let mut peer = begin(&tight, "web").await;
        peer.send(much).await;
        cut_off(&tight, &mut peer, reason).await;
    }
    let none =
        gateway(&counting.upstream, "max_stream_resets: 0, max_control_frames: 0, max_stream_errors: 0,");
    for flood in [pings(2_000), malformed(200)] {
        let mut peer = begin(&none, "web").await;
        peer.send(&flood).await;
        assert!(peer.is_alive().await);
    }
}

#[tokio::test]
async fn more_streams_than_there_may_be_are_refused_and_then_cut_off_and_the_upstream_sees_those_that_may_be()
{
    let counting = Counting::new().await;
    let gateway = gateway(&counting.upstream, "");
    let mut peer = begin(&gateway, "web").await;
    let flood: Vec<u8> = (0..400).flat_map(|n| get(2 * n + 1, "/held")).collect();
    beside(&gateway, async {
        peer.send(&flood).await;
        cut_off(&gateway, &mut peer, "http2_too_many_stream_errors").await;
    })
    .await;
    assert!(counting.starts() <= 100, "{} requests reached the upstream", counting.starts());
    let refused = counted(&gateway, "web", "too_many_streams").await;
    assert!((100..=300).contains(&refused), "{refused} were refused");
    // One too many is only refused.
    let mut peer = begin(&gateway, "web").await;
    peer.send(&(0..101).flat_map(|n| get(2 * n + 1, "/held")).collect::<Vec<u8>>()).await;
    assert_eq!(peer.fate(201).await, Fate::Reset(7));
    counting.answer.send(true).expect("the upstream waits");
    assert_eq!(peer.fate(1).await, Fate::Status(200));
}

#[tokio::test]
async fn a_preface_a_frame_and_a_header_block_that_do_not_arrive_end_the_connection() {
    let counting = Counting::new().await;
    let gateway = gateway(&counting.upstream, "request_headers_timeout: 300ms,");
    let half = frame(HEADERS, END_STREAM, 1, &block(&[(":method", "GET"), (":scheme", "http")]));
    let started = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let cases: [(&str, &str, Vec<u8>); 6] = [
        ("tls", "nothing", Vec::new()),
        ("tls", "half a preface", PREFACE[..12].to_vec()),
        ("web", "a preface without settings", [PREFACE, &[0, 0, 0]].concat()),
        ("web", "a header block without end", [&started[..], &half].concat()),
        ("web", "a frame without end", [&started[..], &get(1, "/")[..20]].concat()),
        ("tls", "the head of a frame without end", [&started[..], &[0, 0]].concat()),
    ];
    let mut count = std::collections::HashMap::new();
    for (listener, what, bytes) in cases {
        let mut peer = open(&gateway, listener).await;
        peer.send(&bytes).await;
        let end = beside(&gateway, soon(what, peer.end())).await;
        assert_eq!(end, Some((CALM, "http2_header_timeout".to_owned())), "{what}");
        *count.entry(listener).or_insert(0) += 1;
        wait_counted(&gateway, listener, "http2_header_timeout", count[listener]).await;
    }
    // A stream under way is not cut by it, nor one that has no body yet.
    let mut peer = begin(&gateway, "web").await;
    peer.send(&get(1, "/held")).await;
    let asked = async || (counting.starts() > 0).then_some(());
    until("the upstream to be asked", asked).await;
    let mut clock = open(&gateway, "tls").await;
    assert!(clock.end().await.is_some(), "one that begins later is over");
    counting.answer.send(true).expect("the upstream waits");
    assert_eq!(peer.fate(1).await, Fate::Status(200));
}

#[tokio::test]
async fn a_client_that_does_not_go_when_it_is_told_to_is_cut_off() {
    let counting = Counting::new().await;
    let gateway = gateway(&counting.upstream, "idle_timeout: 200ms,");
    let mut peer = begin(&gateway, "web").await;
    // It answers no ping, the one of the farewell included.
    let mut told = false;
    while let Some(frame) = peer.next().await {
        told |= frame.kind == weir_tests::frames::GOAWAY;
    }
    assert!(told);
}
