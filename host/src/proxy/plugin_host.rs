//! What a worker does for its plugins.

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use tokio::sync::mpsc::UnboundedSender;

use crate::plugin::fiber::Turns;
use crate::plugin::filter::{Account, GrpcEvent, GrpcSender, PluginHost, VmCell, VmSpec};
use crate::plugin::instance::Instance;
use crate::plugin::vm::{CallAnswer, GrpcOpen, HttpCall};
use crate::proxy::worker::{Report, Retired, Worker};
use crate::proxy::{callout, grpc};

/// The worker, as its plugins see it.
pub struct WorkerHost {
    worker: Weak<Worker>,
    index: usize,
    reports: UnboundedSender<Report>,
    reaper: Sender<Retired>,
    turns: Turns,
}

impl WorkerHost {
    /// The host of a worker's plugins.
    pub fn new(
        worker: Weak<Worker>,
        index: usize,
        reports: UnboundedSender<Report>,
        reaper: Sender<Retired>,
    ) -> Self {
        Self { worker, index, reports, reaper, turns: Turns::default() }
    }
}

impl PluginHost for WorkerHost {
    fn http_call(&self, call: HttpCall, account: Account, then: Box<dyn FnOnce(Option<CallAnswer>)>) {
        let worker = self.worker.clone();
        tokio::task::spawn_local(async move {
            let Some(worker) = worker.upgrade() else { return };
            // The guest is told of it in the same slice.
            account.charge(async { then(callout::call(&worker, call, &account).await) }).await;
        });
    }

    fn grpc(&self, open: GrpcOpen, account: Account, then: Box<dyn Fn(GrpcEvent)>) -> Box<dyn GrpcSender> {
        grpc::open(self.worker.clone(), open, account, then)
    }

    fn linger(&self, vm: Rc<VmCell>) {
        match self.worker.upgrade() {
            Some(worker) => worker.linger(vm),
            // The worker has ended, and nothing would call the plugin any more.
            None => vm.end(),
        }
    }

    fn condemned(&self, vm: &Arc<VmSpec>) {
        // Without a control plane the process is about to end.
        let _ = self.reports.send(Report::Condemned { worker: self.index, vm: Arc::clone(vm) });
    }

    fn stream_failed(&self, vm: &Arc<VmSpec>) {
        // As above.
        let _ = self.reports.send(Report::StreamFailed { vm: Arc::clone(vm) });
    }

    fn retire(&self, instance: Box<Instance>) {
        // Nobody takes it any more only when the process ends.
        let _ = self.reaper.send(Retired::Instance(instance));
    }

    fn turns(&self) -> &Turns {
        &self.turns
    }
}
