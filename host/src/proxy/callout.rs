//! Calls that plugins make: one request, one answer, gathered whole.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use http::HeaderMap;

use crate::http::body::Frame;
use crate::http::h1::Length;
use crate::http::peer::Source;
use crate::http::{h1, h2};
use crate::plugin::filter::{Account, Toll};
use crate::plugin::vm::{CallAnswer, HttpCall};
use crate::proxy::forward::MOST_INTERIM;
use crate::proxy::retry::is_idempotent;
use crate::proxy::worker::Worker;
use crate::upstream::connection::{Http1, HttpConnection, Wanted};
use crate::upstream::local::LocalCluster;

/// The most bytes of an answer's body.
const MAX_BODY: usize = 1 << 20;

/// Sends a call, when `account` has room for it, and awaits its answer; `None` when there is none, or not in time.
pub async fn call(worker: &Rc<Worker>, call: HttpCall, account: &Account) -> Option<CallAnswer> {
    let cluster = {
        let local = worker.local()?;
        let number = local.snapshot.cluster_number(&call.cluster)?;
        Rc::clone(local.clusters.get(number)?)
    };
    let timer = worker.timers.timer();
    if let Some(timeout) = call.timeout {
        timer.set(timeout);
    }
    let sent = async {
        let _room = account.room().await;
        // Those that wait by the thousand take no memory for what they are going to do.
        Box::pin(send(&cluster, &call, account)).await
    };
    let answered = timer.limit(sent).await?;
    answered
        .inspect_err(|reason| tracing::debug!(cluster = &*call.cluster, "a plugin's call failed: {reason}"))
        .ok()
}

/// The connection of a plugin's call.
pub const CALL: Wanted = Wanted { fresh: false, upgrade: false, avoid: None, called: true, client: None };

async fn send(cluster: &Rc<LocalCluster>, call: &HttpCall, account: &Account) -> Result<CallAnswer, String> {
    let failed = match attempt(cluster, call, account, CALL).await {
        // A connection may have been closed as the call was on its way: what may be repeated is sent once more.
        Err(Unsent { reason, stale: true }) if is_idempotent(&call.request.method) => reason,
        ended => return ended.map_err(|unsent| unsent.reason),
    };
    let again = attempt(cluster, call, account, Wanted { fresh: true, ..CALL }).await;
    again.map_err(|unsent| format!("{failed}; then {}", unsent.reason))
}

/// Why a call was not answered.
struct Unsent {
    reason: String,
    /// Whether its connection had carried something before, and may have been closed since.
    stale: bool,
}

async fn attempt(
    cluster: &Rc<LocalCluster>,
    call: &HttpCall,
    account: &Account,
    wanted: Wanted,
) -> Result<CallAnswer, Unsent> {
    let connected = cluster.connect_http(wanted).await;
    match connected.map_err(|error| Unsent { reason: error.to_string(), stale: false })? {
        HttpConnection::H1(http) => {
            let stale = http.reused;
            send_h1(cluster, http, call).await.map_err(|reason| Unsent { reason, stale })
        }
        HttpConnection::H2 { client, reused, .. } => {
            let sent = send_h2(client, call, account).await;
            sent.map_err(|none| Unsent { reason: none.reason, stale: reused && none.elsewhere })
        }
    }
}

/// The length of a call's body: trailers need the chunked coding.
fn length(call: &HttpCall) -> Length {
    match (call.body.len(), call.trailers.is_empty()) {
        (0, true) => Length::None,
        (len, true) => Length::Known(len as u64),
        (_, false) => Length::Unknown,
    }
}

async fn send_h1(
    cluster: &Rc<LocalCluster>,
    http: Box<Http1>,
    call: &HttpCall,
) -> Result<CallAnswer, String> {
    let connection = &http.connection;
    connection.send_request(&call.request, length(call), false);
    let trailers = (!call.trailers.is_empty()).then_some(&call.trailers);
    connection
        .send_data(call.body.clone())
        .and_then(|()| connection.send_end(trailers))
        .map_err(|error| error.to_string())?;
    let mut interim = 0;
    let mut sent = false;
    let head = loop {
        // An endpoint may answer before it has read all of the body. What cannot be sent shows when it is read.
        let head = poll_fn(|cx| {
            sent = sent || connection.poll_flush(cx).is_ready();
            connection.poll_response(cx, &call.request.method)
        });
        let head = head.await.map_err(|error| error.to_string())?;
        if !head.response.status.is_informational() {
            break head;
        }
        interim += 1;
        if interim == MOST_INTERIM {
            return Err("it sent no answer, but interim responses that nobody asked for".to_owned());
        }
    };
    if !head.keep_alive || !sent {
        connection.retire();
    }
    let source = if head.length == Length::None { Source::Empty } else { Source::H1(connection) };
    let answer = gather(head.response, source).await?;
    cluster.give_back(http);
    Ok(answer)
}

async fn send_h2(
    mut client: h2::Client,
    call: &HttpCall,
    account: &Account,
) -> Result<CallAnswer, h2::NoAnswer> {
    let length = length(call);
    let (answer, body, part) = client.send(&call.request, length).map_err(h2::NoAnswer::here)?;
    let _toll = Toll::new(account, part);
    if length != Length::None {
        body.data(call.body.clone());
        body.end((!call.trailers.is_empty()).then(|| call.trailers.clone()));
    }
    let (response, _, incoming) = answer.await?;
    gather(response, Source::H2(&incoming)).await.map_err(h2::NoAnswer::here)
}

async fn gather(response: crate::http::message::Response, source: Source<'_>) -> Result<CallAnswer, String> {
    let mut body = BytesMut::new();
    let mut trailers = HeaderMap::new();
    let next = |cx: &mut Context<'_>| -> Poll<Result<Option<Frame>, h1::BodyError>> { source.poll_frame(cx) };
    while let Some(frame) = poll_fn(next).await.map_err(|error| error.to_string())? {
        match frame {
            Frame::Data(data) => {
                if body.len() + data.len() > MAX_BODY {
                    return Err(format!("the answer is larger than {MAX_BODY} bytes"));
                }
                body.extend_from_slice(&data);
            }
            Frame::Trailers(found) => trailers = found,
        }
    }
    Ok(CallAnswer { status: Some(response.status), headers: response.headers, body: body.freeze(), trailers })
}
