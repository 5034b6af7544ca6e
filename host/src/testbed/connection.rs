//! One TCP connection in a bed, as `proxy/tcp.rs` and `proxy/filtered.rs` serve them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use weir_abi::PeerKind;

use crate::net::connection::Connection;
use crate::plugin::chain::data::Passed;
use crate::plugin::chain::{Chain, Half, Stop};
use crate::plugin::outside::Outside;
use crate::plugin::stream::{SharedStream, Stream as StreamState};
use crate::testbed::bed::{Bed, Stage};
use crate::testbed::exchange::{note_cluster, note_properties};
use crate::testbed::facts::{ConnectionFacts, Direction, default_of};
use crate::testbed::seen::Seen;

/// What filters may hold of a connection's data.
const MAX_HELD: usize = 1 << 20;

impl Bed {
    /// Serves one connection: what comes on it, in this order, then the ends of the client and of the upstream.
    /// `properties`: the paths of those that are to be noted down at its end.
    pub fn connection(
        &mut self,
        facts: Option<&ConnectionFacts>,
        data: &[Direction],
        properties: &[&str],
    ) -> Seen {
        let plain = default_of();
        let connection = self.stage.connect(facts.unwrap_or(&plain));
        // Within the runtime: a filter may call out as soon as it has a context.
        let served = self.run(async { Served::begin(&self.stage, &connection, data).run(properties).await });
        let mut seen = served.unwrap_or_else(|| Seen { stuck: true, ..Seen::default() });
        self.see(&mut seen);
        seen
    }
}

struct Served {
    stream: SharedStream,
    chain: Chain,
    begun: Result<(), Stop>,
    /// What comes, and whether it is the last of its half.
    coming: VecDeque<(Half, Bytes, bool)>,
    seen: Seen,
}

impl Served {
    fn begin(stage: &Stage, connection: &Arc<Connection>, data: &[Direction]) -> Self {
        let stream = StreamState::new(Arc::clone(connection));
        stream.borrow_mut().info.began_at = Some(stage.world.wall());
        let (chain, begun) = Chain::begin(stage.filters.iter().cloned(), &stream, &stage.timers);
        let pieces = |half, body: &crate::testbed::message::Body| -> Vec<_> {
            body.0.iter().map(|piece| (half, piece.clone(), false)).collect()
        };
        let mut coming: VecDeque<_> = data
            .iter()
            .flat_map(|direction| match direction {
                Direction::Client(body) => pieces(Half::Received, body),
                Direction::Upstream(body) => pieces(Half::Answered, body),
            })
            .collect();
        coming.push_back((Half::Received, Bytes::new(), true));
        coming.push_back((Half::Answered, Bytes::new(), true));
        Self { stream, chain, begun, coming, seen: Seen::default() }
    }

    async fn run(mut self, properties: &[&str]) -> Seen {
        let begun = std::mem::replace(&mut self.begun, Ok(()));
        let ended = match begun {
            Ok(()) => self.serve().await,
            Err(stop) => Err(stop),
        };
        self.seen.closed = ended.is_err();
        {
            let stream = self.stream.borrow();
            note_properties(&stream, properties, &mut self.seen);
            note_cluster(&stream, &mut self.seen);
            self.seen.details = stream.info.details.as_deref().map(str::to_owned);
        }
        self.chain.closed_by(PeerKind::Local);
        self.chain.finish();
        self.seen
    }

    async fn serve(&mut self) -> Result<(), Stop> {
        self.chain.on_new_connection().await?;
        let filtered = self.chain.wants_data(Half::Received) || self.chain.wants_data(Half::Answered);
        let mut open = 2;
        while open > 0 {
            let moved = poll_fn(|cx| self.poll_passed(filtered, cx)).await;
            let (half, passed) = moved?;
            let (data, end) = match passed {
                Passed::Held => continue,
                Passed::Data(data, end) => (data, end),
                Passed::End(data, _) => (data, true),
            };
            let gets = match half {
                Half::Received => &mut self.seen.upstream_gets,
                Half::Answered => &mut self.seen.client_gets,
            };
            gets.extend_from_slice(&data);
            open -= u32::from(end);
        }
        if !filtered {
            self.chain.on_upstream_close();
        }
        Ok(())
    }

    /// What has passed the filters, in either direction.
    fn poll_passed(&mut self, filtered: bool, cx: &mut Context<'_>) -> Poll<Result<(Half, Passed), Stop>> {
        let Self { chain, coming, .. } = self;
        if let Poll::Ready(stop) = chain.poll_interrupt(cx) {
            return Poll::Ready(Err(stop));
        }
        if filtered {
            for half in [Half::Received, Half::Answered] {
                if let Poll::Ready(passed) = chain.poll_resumed(half, cx) {
                    return Poll::Ready(passed.map(|passed| (half, passed)));
                }
            }
        }
        let Some((half, data, end)) = coming.front().cloned() else { return Poll::Pending };
        if filtered && chain.is_full(half) {
            return Poll::Pending;
        }
        coming.pop_front();
        if !filtered {
            return Poll::Ready(Ok((half, Passed::Data(data, end))));
        }
        Poll::Ready(chain.on_data(half, data, end, MAX_HELD).map(|passed| (half, passed)))
    }
}
