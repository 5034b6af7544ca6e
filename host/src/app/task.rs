//! What the control plane does while it serves, one thing at a time.

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::app::succession;
use crate::net::hand_over::Successor;
use crate::reload::Control;
use crate::reload::names::Moved;
use crate::reload::rollback::Failing;

/// What the control plane takes up.
pub enum Task {
    /// Whatever has changed.
    Look,
    /// Everything, because somebody asks, who may want to hear how it went.
    Reload(Option<oneshot::Sender<Result<(), String>>>),
    /// The file of the access log, which may have been moved away.
    Reopen,
    /// Other endpoints of a cluster.
    Endpoints(Moved),
    /// A new version that keeps failing.
    RollBack(Failing),
    /// A new process that takes over.
    HandOver(Successor),
}

impl Task {
    /// Does it. `admin`: what accepts for the admin API.
    pub async fn run(self, control: &mut Control, admin: &mut Option<JoinHandle<()>>) -> Done {
        match self {
            Self::Look => {
                let config = control.look_at_config().await;
                let certificates = control.look_at_certificates().await;
                Done::looked(control.look_at_plugins().await || config || certificates)
            }
            Self::Reopen => {
                control.reopen_log();
                Done::Kept
            }
            Self::Reload(told) => {
                control.reopen_log();
                // What is wrong with it is logged, too.
                let reloaded = control.reload_config().await.map_err(|problems| problems.to_string());
                let reloaded = reloaded.and_then(|()| control.certificates_are_good());
                let unsettled = control.look_at_plugins().await;
                if let Some(told) = told {
                    // Whoever asked may have stopped waiting.
                    let _ = told.send(reloaded);
                }
                Done::looked(unsettled)
            }
            Self::RollBack(failing) => {
                control.roll_back(failing).await;
                Done::Kept
            }
            Self::Endpoints(moved) => {
                control.take_endpoints(&moved).await;
                Done::Kept
            }
            Self::HandOver(mut successor) => {
                if !succession::hand_over(control, &mut successor).await {
                    return Done::Kept;
                }
                // From here on the new process answers for both.
                if let Some(accepting) = admin.take() {
                    accepting.abort();
                    // It ends with an error, which says that it was aborted.
                    let _ = accepting.await;
                }
                successor.relieved().await;
                Done::HandedOver
            }
        }
    }
}

/// What became of a task.
pub enum Done {
    /// Nothing is still being written.
    Settled,
    /// Something is still being written.
    Unsettled,
    /// It had nothing to do with that.
    Kept,
    /// Another process serves.
    HandedOver,
}

impl Done {
    fn looked(unsettled: bool) -> Self {
        if unsettled { Self::Unsettled } else { Self::Settled }
    }
}
