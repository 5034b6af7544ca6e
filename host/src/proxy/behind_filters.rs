//! HTTP behind network filters: they see the connection, and its bytes once it is decrypted, before HTTP does.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::limits::Limits;
use crate::net::connection::Connection;
use crate::net::relay::{End, Relayed};
use crate::net::stream::Stream;
use crate::plugin::chain::{Chain, Half, Stop};
use crate::plugin::stream::Stream as StreamState;
use crate::proxy::filtered::Filtered;
use crate::proxy::http::Session;
use crate::proxy::session::SessionCx;
use crate::proxy::tcp::{Record, reason_of};

/// What may be on the way between the filters and HTTP, in each direction.
const ROOM: usize = 64 * 1024;

/// Serves a connection.
pub async fn serve(cx: SessionCx, connection: Arc<Connection>, stream: Stream, limits: Limits) {
    let state = StreamState::new(Arc::clone(&connection));
    let (mut chain, begun) = Chain::begin(cx.listener.filters.iter().cloned(), &state, &cx.worker.timers);
    let served = match begun {
        Ok(()) => run(&cx, &mut chain, &connection, stream, limits).await,
        Err(stop) => Err(stop),
    };
    if let Err(stop) = served {
        let reason = reason_of(&stop);
        cx.closed(&connection, reason);
        // Told when it is dropped. What was moved before is in the records of the exchanges.
        drop(Record::new(&cx, state, Some(reason)));
    }
    chain.finish();
}

async fn run(
    cx: &SessionCx,
    chain: &mut Chain,
    connection: &Arc<Connection>,
    mut downstream: Stream,
    limits: Limits,
) -> Result<(), Stop> {
    chain.on_new_connection().await?;
    let session = Session::new(cx, Arc::clone(connection));
    if !chain.wants_data(Half::Received) && !chain.wants_data(Half::Answered) {
        return chain.unless_stopped(session.serve(downstream, limits)).await;
    }
    let (inner, mut outer) = Stream::pair(ROOM);
    let mut serving = pin!(session.serve(inner, limits));
    let mut served = false;
    let ended = {
        let mut relayed = Relayed::default();
        let timer = cx.worker.timers.timer();
        let relay = Filtered {
            chain: RefCell::new(chain),
            downstream: RefCell::new(&mut downstream),
            upstream: RefCell::new(&mut outer),
            relayed: RefCell::new(&mut relayed),
            scratch: &cx.worker.scratch,
            timer: &timer,
            idle: cx.relay_idle(),
            // HTTP ends a connection when it has nothing more to say on it.
            one_way: true,
        };
        let mut relaying = pin!(relay.run(Bytes::new()));
        poll_fn(|cx| {
            if !served {
                served = serving.as_mut().poll(cx).is_ready();
            }
            relaying.as_mut().poll(cx)
        })
        .await
    };
    if outer.was_reset() || ended.is_err() || matches!(ended, Ok(End::Downstream(_) | End::Idle)) {
        downstream.reset();
    }
    drop((outer, downstream));
    if !served {
        // It finds its connection closed, cancels what is under way and tells the log.
        serving.await;
    }
    ended.map(drop)
}
