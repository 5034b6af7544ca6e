//! VMs of single streams (`isolation: stream`): a copy of the plugin as it was when it was configured, which ends with its
//! stream, by a fault too. What they use is in the books of their worker's VM.
//!
//! Of a stream's VM nobody hears but its stream: what was asked for while the plugin was configured, timers, queues and
//! calls, is for the worker's.

use std::rc::Rc;

use crate::plugin::filter::{Unavailable, VmCell, VmHandle};
use crate::plugin::instance::{Fault, Instance, StartError};
use crate::plugin::services::FaultKind;
use crate::plugin::vm::Outgoing;

/// The memory of an instance that is dropped on the worker, in bytes. To give more back takes its time.
const SMALL: usize = 8 << 20;

impl VmCell {
    /// A VM for a stream that begins, when streams do not share this one.
    ///
    /// # Errors
    /// When there is no room for another instance.
    pub fn for_stream(&self) -> Result<Option<Rc<VmHandle>>, Unavailable> {
        if !self.spec.is_per_stream() {
            return Ok(None);
        }
        let made = self.spec.start_for_stream(&self.clusters.borrow());
        let instance = made.map_err(|error| self.tell_of_no_room(&error))?;
        let own = Self::new(&self.spec, &self.host, &self.books, Box::new(instance), true);
        Ok(Some(Rc::new(VmHandle { first: own, others: Box::default() })))
    }

    fn tell_of_no_room(&self, error: &StartError) -> Unavailable {
        if self.books.tells_of_failure() {
            let plugin = self.spec.filters.first().map_or("", |spec| &*spec.plugin);
            tracing::warn!(plugin, "a stream has no instance: {error}");
        }
        Unavailable
    }

    /// Ends the instance of a stream that failed. It concerns no other stream; only one that overran took the time of
    /// others, and such failures count together.
    pub(super) fn condemn_of_stream(&self, instance: Option<Box<Instance>>, fault: &Fault, spent: u64) {
        self.let_go(instance);
        let plugin = self.spec.filters.first().map_or("", |spec| &*spec.plugin);
        self.tell_outside(plugin, fault);
        if fault.kind == FaultKind::Cpu {
            self.note_fault(spent);
        }
        if self.books.tells_of_failure() {
            let (digest, kind) = (self.spec.digest, fault.kind.as_str());
            tracing::error!(plugin, %digest, kind, "a plugin failed for a stream: {}", fault.message);
            self.host.stream_failed(&self.spec);
        }
    }

    /// The stream has ended, and with it all that its instance was for.
    pub(super) fn drop_instance(&self) {
        let Some(mut instance) = self.instance.take() else { return };
        if instance.vm().limiter.used > SMALL {
            self.host.retire(instance);
        }
    }

    /// Whether something is for the VM of a worker, and not for that of a stream.
    pub(super) fn is_of_worker(&self, asked: &Outgoing) -> bool {
        self.of_stream && matches!(asked, Outgoing::Listen { .. } | Outgoing::Done { .. })
    }
}
