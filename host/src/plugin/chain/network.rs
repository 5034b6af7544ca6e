//! The beginning and the end of a TCP connection.

use std::future::poll_fn;

use weir_abi::PeerKind;

use crate::plugin::chain::apart::Step;
use crate::plugin::chain::hold::Held;
use crate::plugin::chain::{Call, Chain, Half, Outcome, Stop};
use crate::plugin::filter::Which;

impl Chain {
    /// Tells the filters of a new connection. A filter that returns Pause is waited for.
    ///
    /// # Errors
    /// When a filter closes the connection.
    pub async fn on_new_connection(&mut self) -> Result<(), Stop> {
        let half = Half::Received;
        for at in self.order(half) {
            let which: Which<(u32,), u32> = |callbacks| &callbacks.proxy_on_new_connection;
            match self.call(at, half, which, |id, _| (id,))? {
                Call::Done(Outcome::Continue) => continue,
                Call::Done(Outcome::Pause(_)) => drop(self.set_held(half, at, Held::Start)),
                Call::Later(returned) => self.wait_for(half, at, returned, Step::Connection),
            }
            poll_fn(|cx| self.poll_release(half, at, cx)).await?;
            self.take_hold(half, at);
        }
        Ok(())
    }

    /// Tells a filter that the upstream has ended, right after it has seen the last of its bytes, as in Envoy.
    pub(super) fn upstream_closed(&mut self, at: usize) {
        self.told_of_close(at, |callbacks| &callbacks.proxy_on_upstream_connection_close, PeerKind::Unknown);
    }

    /// Tells the filters that the upstream has ended, when its bytes did not pass them.
    pub fn on_upstream_close(&mut self) {
        self.order(Half::Answered).for_each(|at| self.upstream_closed(at));
    }

    /// Who closed the connection to the client, for what the filters are told in the end.
    pub fn closed_by(&mut self, peer: PeerKind) {
        self.closed_by = peer;
    }

    /// Tells a filter that the connection to the client is closed.
    pub(super) fn downstream_closed(&self, at: usize) {
        self.told_of_close(at, |callbacks| &callbacks.proxy_on_downstream_connection_close, self.closed_by);
    }

    fn told_of_close(&self, at: usize, which: Which<(u32, u32), ()>, peer: PeerKind) {
        let Some(slot) = self.slots.get(at) else { return };
        let Some((generation, id)) = slot.context else { return };
        let limit = slot.filter.spec.cpu;
        if let Some(lane) = &slot.lane {
            return lane.call_later(generation, id, limit, which, (id, peer.into()));
        }
        // A fault ends the instance, and shows when the filter is called next.
        let _ = slot.vm().with(generation, |instance| instance.call(id, limit, which, (id, peer.into())));
    }
}
