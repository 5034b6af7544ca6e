//! gRPC calls that plugins make, over the HTTP/2 connections of a cluster
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use std::future::poll_fn;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use tokio::sync::SemaphorePermit;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

use crate::http::body::Frame;
use crate::http::h1::Length;
use crate::http::h2::{Answer, Incoming};
use crate::http::message::Scheme;
use crate::http::pipe;
use crate::plugin::filter::{Account, GrpcEvent, GrpcSender, Toll};
use crate::plugin::vm::GrpcOpen;
use crate::proxy::callout::CALL;
use crate::proxy::worker::Worker;
use crate::upstream::connection::HttpConnection;

/// The largest message that is received, in bytes; gRPC's own default.
const MAX_MESSAGE: usize = 4 << 20;

/// Status codes (<https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>).
const UNKNOWN: u32 = 2;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

/// The guest's half of a call.
struct Sender {
    messages: UnboundedSender<(Option<Bytes>, bool)>,
    task: AbortHandle,
}

impl GrpcSender for Sender {
    fn send(&self, message: Option<Bytes>, end: bool) {
        // A call that has ended takes nothing more, and says so in its own time.
        let _ = self.messages.send((message, end));
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a call ended.
struct Closed(u32, String);

impl Closed {
    fn new(status: u32, message: impl Into<String>) -> Self {
        Self(status, message.into())
    }
}

/// Begins a call at the expense of `account`; what it brings is handed to `then`.
pub fn open(
    worker: Weak<Worker>,
    open: GrpcOpen,
    account: Account,
    then: Box<dyn Fn(GrpcEvent)>,
) -> Box<dyn GrpcSender> {
    let (messages, received) = unbounded_channel();
    if let Some(message) = open.message.clone() {
        // It is there: nobody has taken the other end.
        let _ = messages.send((Some(message), true));
    }
    let task = tokio::task::spawn_local(async move {
        let Some(worker) = worker.upgrade() else { return };
        let timer = worker.timers.timer();
        if let Some(timeout) = open.timeout {
            timer.set(timeout);
        }
        let cluster = open.cluster.clone();
        // The guest is told how it ended in the same slice.
        let told = async {
            let ended = timer.limit(run(&worker, open, received, &account, &then)).await;
            let Closed(status, message) =
                ended.unwrap_or_else(|| Closed::new(UNAVAILABLE, "upstream request timeout"));
            tracing::debug!(cluster = &*cluster, status, "a plugin's gRPC call ended: {message}");
            then(GrpcEvent::Closed { status, message });
        };
        account.charge(told).await;
    });
    Box::new(Sender { messages, task: task.abort_handle() })
}

async fn run(
    worker: &Rc<Worker>,
    open: GrpcOpen,
    messages: UnboundedReceiver<(Option<Bytes>, bool)>,
    account: &Account,
    then: &dyn Fn(GrpcEvent),
) -> Closed {
    let room = account.room().await;
    // Those that wait by the thousand take no memory for what they are going to do.
    Box::pin(begun(worker, open, messages, (account, room), then)).await
}

/// A call for which there is `room`.
async fn begun(
    worker: &Rc<Worker>,
    mut open: GrpcOpen,
    messages: UnboundedReceiver<(Option<Bytes>, bool)>,
    (account, room): (&Account, Option<SemaphorePermit<'_>>),
    then: &dyn Fn(GrpcEvent),
) -> Closed {
    let cluster = worker.local().and_then(|local| {
        let number = local.snapshot.cluster_number(&open.cluster)?;
        local.clusters.get(number).cloned()
    });
    let Some(cluster) = cluster else {
        return Closed::new(UNAVAILABLE, "the cluster is not there any more");
    };
    if cluster.cluster().tls.is_some() {
        open.request.scheme = Scheme::Https;
    }
    let mut client = match cluster.connect_http(CALL).await {
        Ok(HttpConnection::H2 { client, .. }) => client,
        Ok(HttpConnection::H1(http)) => {
            cluster.give_back(http);
            return Closed::new(UNAVAILABLE, "the cluster does not speak HTTP/2; set its `protocol: http2`");
        }
        Err(error) => {
            tracing::debug!("a plugin's gRPC call: {error}");
            return Closed::new(UNAVAILABLE, "the cluster could not be connected to");
        }
    };
    let (answer, body, part) = match client.send(&open.request, Length::Unknown) {
        Ok(sent) => sent,
        Err(reason) => return Closed::new(INTERNAL, reason),
    };
    let toll = Toll::new(account, part);
    // Streams may stay for as long as they like.
    let _room = room.filter(|_| open.message.is_some());
    let mut sending = pin!(send(body, messages, &open.waiting));
    let mut receiving = pin!(receive(answer, then));
    poll_fn(|cx| {
        toll.pay();
        // It never ends before the call does.
        let _: Poll<()> = sending.as_mut().poll(cx);
        receiving.as_mut().poll(cx)
    })
    .await
}

/// Sends what the guest has to say, as fast as it is taken.
async fn send(
    body: pipe::Writer,
    mut messages: UnboundedReceiver<(Option<Bytes>, bool)>,
    waiting: &Arc<AtomicUsize>,
) {
    while let Some((message, end)) = messages.recv().await {
        if let Some(message) = message {
            if poll_fn(|cx| body.poll_ready(cx)).await.is_err() {
                break;
            }
            let mut prefix = BytesMut::with_capacity(5);
            prefix.put_u8(0);
            prefix.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
            body.data(prefix.freeze());
            waiting.fetch_sub(GrpcOpen::weight(&message), Ordering::Relaxed);
            body.data(message);
        }
        if end {
            body.end(None);
            break;
        }
    }
    // The body is broken off when it is dropped, and what was ended is not to be; so it stays until the call ends.
    std::future::pending::<()>().await;
}

/// Receives what the service has to say.
async fn receive(answer: Answer, then: &dyn Fn(GrpcEvent)) -> Closed {
    let (response, _, incoming) = match answer.await {
        Ok(answer) => answer,
        Err(none) => return Closed::new(UNAVAILABLE, none.reason),
    };
    if response.status != StatusCode::OK {
        let message = format!("the service answered with HTTP status {}", response.status.as_u16());
        return Closed::new(of_http(response.status), message);
    }
    // An answer of trailers alone (Trailers-Only).
    if response.headers.contains_key("grpc-status") {
        then(GrpcEvent::Initial(HeaderMap::new()));
        return ended(response.headers, then);
    }
    then(GrpcEvent::Initial(response.headers));
    match messages(&incoming, then).await {
        Ok(trailers) => ended(trailers, then),
        Err(closed) => closed,
    }
}

/// Hands on the messages of a body, and returns its trailers.
async fn messages(incoming: &Incoming, then: &dyn Fn(GrpcEvent)) -> Result<HeaderMap, Closed> {
    let mut gathered = BytesMut::new();
    loop {
        let frame = poll_fn(|cx| incoming.poll_frame(cx)).await;
        match frame.map_err(|_| Closed::new(UNAVAILABLE, "the stream was reset"))? {
            Some(Frame::Data(data)) => gathered.extend_from_slice(&data),
            Some(Frame::Trailers(trailers)) => return Ok(trailers),
            None => return Ok(HeaderMap::new()),
        }
        while let Some(message) = message(&mut gathered)? {
            then(GrpcEvent::Message(message));
        }
    }
}

/// The first message of what has been gathered, once all of it is there.
fn message(gathered: &mut BytesMut) -> Result<Option<Bytes>, Closed> {
    let Some((&[flags, a, b, c, d], rest)) = gathered.split_first_chunk() else { return Ok(None) };
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    if flags != 0 {
        return Err(Closed::new(INTERNAL, "a message is compressed, which nobody asked for"));
    }
    if len > MAX_MESSAGE {
        return Err(Closed::new(RESOURCE_EXHAUSTED, format!("a message is larger than {MAX_MESSAGE} bytes")));
    }
    if rest.len() < len {
        return Ok(None);
    }
    gathered.advance(5);
    Ok(Some(gathered.split_to(len).freeze()))
}

/// The end of a call, as its trailers tell it.
fn ended(trailers: HeaderMap, then: &dyn Fn(GrpcEvent)) -> Closed {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    let status = text("grpc-status").and_then(|status| status.parse().ok()).unwrap_or(UNKNOWN);
    let message = text("grpc-message").unwrap_or_default().to_owned();
    then(GrpcEvent::Trailing(trailers));
    Closed(status, message)
}

/// The gRPC status of an answer that is none
/// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
fn of_http(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_however_they_were_cut() {
        let wire = [&[0, 0, 0, 0, 2][..], b"ab", &[0, 0, 0, 0, 0], &[0, 0, 0, 0, 1], b"c"].concat();
        for cut in 0..=wire.len() {
            let mut gathered = BytesMut::new();
            let mut found = Vec::new();
            for part in [wire.get(..cut), wire.get(cut..)].into_iter().flatten() {
                gathered.extend_from_slice(part);
                while let Ok(Some(message)) = message(&mut gathered) {
                    found.push(message);
                }
            }
            assert_eq!(found, ["ab", "", "c"], "cut at {cut}");
        }
    }

    #[test]
    fn compressed_and_huge_messages_end_the_call_before_they_are_gathered() {
        let refused =
            |prefix: [u8; 5]| message(&mut BytesMut::from(&prefix[..])).err().map(|closed| closed.0);
        assert_eq!(refused([1, 0, 0, 0, 1]), Some(INTERNAL));
        assert_eq!(refused([0, 0xff, 0xff, 0xff, 0xff]), Some(RESOURCE_EXHAUSTED));
        assert_eq!(refused([0, 0, 0, 0, 1]), None);
    }
}
