//! New instances for those that failed: built off the workers, after a back-off, for as long as anybody uses them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::proxy::worker::Order;
use crate::reload::status::Status;

/// The wait before the first new instance; it doubles with every further failure.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// A VM that has run so long without a failure begins anew.
const FORGIVEN: Duration = Duration::from_secs(60);

/// The failures of late.
#[derive(Debug, Default)]
pub struct Rebuilds {
    failures: HashMap<(usize, u64), (u32, Instant)>,
}

impl Rebuilds {
    /// Builds a new instance for a worker, in its own time.
    pub fn rebuild(&mut self, status: &Arc<Status>, worker: usize, vm: u64, orders: UnboundedSender<Order>) {
        self.failures.retain(|_, (_, last)| last.elapsed() < FORGIVEN);
        let (count, last) = self.failures.entry((worker, vm)).or_insert((0, Instant::now()));
        let wait = FIRST.saturating_mul(1 << (*count).min(16)).min(LONGEST);
        *count += 1;
        *last = Instant::now();
        // Workers whose instances failed together do not come back together.
        let wait = wait.mul_f64(fastrand::f64().mul_add(0.5, 0.75));
        let status = Arc::clone(status);
        tokio::spawn(async move {
            let mut wait = wait;
            loop {
                tokio::time::sleep(wait).await;
                let Some(snapshot) = status.snapshot() else { return };
                let Some(spec) = snapshot.vms.iter().find(|spec| spec.id == vm).cloned() else { return };
                let clusters = Arc::clone(&snapshot.cluster_names);
                let started = tokio::task::spawn_blocking(move || spec.start(&clusters)).await;
                match started {
                    Ok(Ok(instance)) => {
                        // A worker that is gone needs none.
                        let _ = orders.send(Order::Replace { vm, instance: Box::new(instance) });
                        return;
                    }
                    Ok(Err(error)) => {
                        tracing::error!(worker, "a plugin that failed does not start again: {error}")
                    }
                    Err(panic) => tracing::error!(worker, "starting a plugin anew failed: {panic}"),
                }
                wait = (wait * 2).min(LONGEST);
            }
        });
    }
}
