//! What a worker does for its plugins.

use std::rc::Weak;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use tokio::sync::mpsc::UnboundedSender;

use crate::plugin::filter::{PluginHost, VmSpec};
use crate::plugin::instance::Instance;
use crate::plugin::vm::{CallAnswer, HttpCall};
use crate::proxy::callout;
use crate::proxy::worker::{Report, Retired, Worker};

/// The worker, as its plugins see it.
pub struct WorkerHost {
    worker: Weak<Worker>,
    index: usize,
    reports: UnboundedSender<Report>,
    reaper: Sender<Retired>,
}

impl WorkerHost {
    /// The host of a worker's plugins.
    pub fn new(
        worker: Weak<Worker>,
        index: usize,
        reports: UnboundedSender<Report>,
        reaper: Sender<Retired>,
    ) -> Self {
        Self { worker, index, reports, reaper }
    }
}

impl PluginHost for WorkerHost {
    fn http_call(&self, call: HttpCall, then: Box<dyn FnOnce(Option<CallAnswer>)>) {
        let worker = self.worker.clone();
        tokio::task::spawn_local(async move {
            let Some(worker) = worker.upgrade() else { return };
            then(callout::call(&worker, call).await);
        });
    }

    fn condemned(&self, vm: &Arc<VmSpec>) {
        // Without a control plane the process is about to end.
        let _ = self.reports.send(Report::Condemned { worker: self.index, vm: vm.id });
    }

    fn retire(&self, instance: Box<Instance>) {
        // Nobody takes it any more only when the process ends.
        let _ = self.reaper.send(Retired::Instance(instance));
    }
}
