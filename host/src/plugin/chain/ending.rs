//! How a stream ends for its filters: by their failures, by what they ask for, or in the usual way.

use std::sync::Arc;

use ::http::StatusCode;
use bytes::Bytes;

use crate::plugin::chain::{Chain, Half, Slot, Stop};
use crate::plugin::filter::set_access;
use crate::plugin::meter::Refusal;
use crate::plugin::stream::LocalReply;
use crate::plugin::vm::{Access, Intents};

impl Chain {
    /// A filter cannot be called: the stream ends, or goes on without it, as its failure policy says.
    ///
    /// `holds`: whether it holds a message of this half. A message that it holds or has changed is not whole
    /// without it, so then the stream is reset even if the filter may fail.
    pub(super) fn fail(&mut self, at: usize, half: Half, holds: bool) -> Result<(), Stop> {
        self.fail_because(at, half, holds, "filter_failure")
    }

    /// As [`Chain::fail`], for another reason.
    pub(super) fn fail_because(
        &mut self,
        at: usize,
        half: Half,
        holds: bool,
        why: &'static str,
    ) -> Result<(), Stop> {
        let Some(slot) = self.slots.get_mut(at) else { return Ok(()) };
        slot.context = None;
        let name = &slot.filter.spec.name;
        let mut stream = self.stream.borrow_mut();
        let edited = match half {
            Half::Received => stream.edited_received,
            Half::Answered => stream.edited_answered,
        };
        if slot.filter.spec.fail_open && !holds && edited & (1 << at) == 0 {
            return Ok(());
        }
        let details: Arc<str> = why.into();
        stream.info.details = Some(Arc::clone(&details));
        stream.info.decided_by = Some(Arc::clone(name));
        if slot.filter.spec.fail_open {
            return Err(Stop::Reset(details));
        }
        // As Envoy does: 503 with an empty body.
        Err(Stop::Reply(LocalReply {
            status: StatusCode::SERVICE_UNAVAILABLE,
            headers: Vec::new(),
            body: Bytes::new(),
            grpc_status: None,
            details,
        }))
    }

    /// A stream has used more CPU time of a filter than it may, or all streams together have: it ends, or goes on
    /// without the filter, as if that had failed. The filter itself goes on, and is told of the end.
    pub(super) fn cut_off(&mut self, at: usize, half: Half) -> Result<(), Stop> {
        let holds = self.held(half, at).is_some();
        let Some(slot) = self.slots.get_mut(at) else { return Ok(()) };
        slot.filter.vm.refused(slot.filter.root, Refusal::Throttled);
        slot.end();
        self.fail_because(at, half, holds, Refusal::Throttled.details())
    }

    /// What a filter asked for in a callback, apart from its return value.
    pub(super) fn obey(&mut self, at: usize, intents: Intents) -> Result<(), Stop> {
        let Some(slot) = self.slots.get(at) else { return Ok(()) };
        let name = || Some(Arc::clone(&slot.filter.spec.name));
        if let Some(reply) = intents.reply {
            let mut stream = self.stream.borrow_mut();
            stream.info.decided_by = name();
            stream.info.details = Some(Arc::clone(&reply.details));
            return Err(Stop::Reply(*reply));
        }
        if intents.close || intents.close_upstream {
            let mut stream = self.stream.borrow_mut();
            stream.info.decided_by = name();
            let details: Arc<str> = "closed_by_filter".into();
            stream.info.details = Some(Arc::clone(&details));
            return Err(Stop::Reset(details));
        }
        Ok(())
    }

    /// Ends the stream for every filter: done, log, delete, in the specification's order (Envoy logs HTTP streams first).
    /// Always happens, on cancellation too.
    pub fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        for at in 0..self.slots.len() {
            if !self.http {
                self.downstream_closed(at);
            }
            if let Some(slot) = self.slots.get_mut(at) {
                slot.end();
            }
        }
    }
}

impl Slot {
    /// Ends the stream for the filter.
    fn end(&mut self) {
        let Some((generation, id)) = self.context.take() else { return };
        let limit = self.filter.spec.cpu;
        if let Some(lane) = &self.lane {
            return lane.end_stream(generation, id, limit, self.trial);
        }
        let ended = self.vm().with(generation, |instance| {
            // That it be held back, as a plugin's end may be, has no meaning for a stream, as in Envoy.
            instance.call(id, limit, |callbacks| &callbacks.proxy_on_done, (id,))?;
            set_access(instance, id, Access::LOG);
            instance.call(id, limit, |callbacks| &callbacks.proxy_on_log, (id,))?;
            set_access(instance, id, Access::NONE);
            instance.call(id, limit, |callbacks| &callbacks.proxy_on_delete, (id,))?;
            instance.delete_stream(id);
            Ok(())
        });
        // A fault here has ended the instance and concerns nobody else any more.
        if ended.is_ok() && self.trial {
            self.filter.vm.trial_passed();
        }
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.finish();
    }
}
