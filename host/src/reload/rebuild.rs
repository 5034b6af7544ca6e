//! New instances for those that failed: built off the workers, after a back-off, for as long as anybody uses them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::plugin::filter::VmSpec;
use crate::proxy::worker::Order;
use crate::reload::status::Status;

/// The wait before the second new instance; the first is built at once. It doubles with every further failure.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// A VM that has run so long without a failure begins anew.
const FORGIVEN: Duration = Duration::from_secs(60);

/// After a start that failed there is rest for so many times as long as it took.
const REST: u32 = 9;

/// The wait after so many failures of late.
fn wait_after(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(doubled) => FIRST.saturating_mul(1 << doubled.min(16)).min(LONGEST),
    }
}

/// The failures of late.
#[derive(Debug, Default)]
pub struct Rebuilds {
    failures: HashMap<(usize, u64), (u32, Instant)>,
}

impl Rebuilds {
    /// Builds a new instance for a worker, in its own time.
    pub fn rebuild(
        &mut self,
        status: &Arc<Status>,
        worker: usize,
        vm: &Arc<VmSpec>,
        orders: UnboundedSender<Order>,
    ) {
        self.failures.retain(|_, (_, last)| last.elapsed() < FORGIVEN);
        let (count, last) = self.failures.entry((worker, vm.id)).or_insert((0, Instant::now()));
        let wait = wait_after(*count);
        *count += 1;
        *last = Instant::now();
        // Workers whose instances failed together do not come back together.
        let wait = wait.mul_f64(fastrand::f64().mul_add(0.5, 0.75));
        let failures = *count;
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(worker, vm = vm.id, failures, wait_ms, "an instance is going to be built anew");
        // Not the VM itself: it is to go when nobody uses it any more. And it need not be in the snapshot yet.
        let (status, spec, vm) = (Arc::clone(status), Arc::downgrade(vm), vm.id);
        tokio::spawn(async move {
            let mut wait = wait;
            loop {
                tokio::time::sleep(wait).await;
                let Some((spec, snapshot)) = spec.upgrade().zip(status.snapshot()) else { return };
                let usage = spec.usages.first().cloned();
                let plugin = spec.filters.first().map(|spec| Arc::clone(&spec.plugin)).unwrap_or_default();
                let clusters = Arc::clone(&snapshot.cluster_names);
                drop(snapshot);
                let begun = Instant::now();
                let started = tokio::task::spawn_blocking(move || spec.start(&clusters)).await;
                let took = begun.elapsed();
                match started {
                    Ok(Ok(instance)) => {
                        // A worker that is gone needs none.
                        let _ = orders.send(Order::Replace { vm, instance: Box::new(instance) });
                        usage.iter().for_each(|usage| usage.rebuilt.inc());
                        tracing::info!(plugin = &*plugin, worker, vm, ?took, "a plugin that failed is back");
                        return;
                    }
                    Ok(Err(error)) => {
                        tracing::error!(
                            plugin = &*plugin,
                            worker,
                            vm,
                            "a plugin that failed does not start again: {error}"
                        )
                    }
                    Err(panic) => tracing::error!(worker, "starting a plugin anew failed: {panic}"),
                }
                usage.iter().for_each(|usage| usage.not_rebuilt.inc());
                // A start that takes long takes the processor from the workers, too.
                wait = (wait.max(FIRST / 2) * 2).min(LONGEST).max(took * REST);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_instance_is_built_at_once_and_the_others_after_waits_that_double_up_to_a_bound() {
        let waits: Vec<_> = (0..12).map(|failures| wait_after(failures).as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        assert_eq!(wait_after(u32::MAX), LONGEST);
    }
}
