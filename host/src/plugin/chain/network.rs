//! The beginning and the end of a TCP connection.

use std::future::poll_fn;

use weir_abi::PeerKind;

use crate::plugin::chain::hold::Held;
use crate::plugin::chain::{Chain, Half, Outcome, Stop, Which};

impl Chain {
    /// Tells the filters of a new connection. A filter that returns Pause is waited for.
    ///
    /// # Errors
    /// When a filter closes the connection.
    pub async fn on_new_connection(&mut self) -> Result<(), Stop> {
        let half = Half::Received;
        for at in self.order(half) {
            let which: Which<(u32,), u32> = |callbacks| &callbacks.proxy_on_new_connection;
            if let Outcome::Pause(_) = self.call(at, half, which, |id, _| (id,))? {
                self.set_held(half, at, Held::Start);
                poll_fn(|cx| self.poll_release(half, at, cx)).await?;
                self.take_hold(half, at);
            }
        }
        Ok(())
    }

    /// Tells the filters that one side is closed.
    pub fn on_close(&mut self, half: Half, peer: PeerKind) {
        let which: Which<(u32, u32), ()> = match half {
            Half::Received => |callbacks| &callbacks.proxy_on_downstream_connection_close,
            Half::Answered => |callbacks| &callbacks.proxy_on_upstream_connection_close,
        };
        for slot in &self.slots {
            let Some((generation, id)) = slot.context else { continue };
            let limit = slot.filter.spec.cpu;
            // The stream is over: a fault ends the instance and nothing else.
            let _ = slot
                .filter
                .vm
                .with(generation, |instance| instance.call(id, limit, which, (id, peer.into())));
        }
    }
}
