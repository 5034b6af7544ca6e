//! Looks at the load of the process every so often, and has the workers give up what the level says.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::overload::{Gauges, Level, Overload};
use crate::proxy::worker::Order;
use crate::reload::status::Status;

/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(10);

/// Looks until the process ends. What may be used is what the configuration in force says.
pub async fn run(
    status: Arc<Status>,
    overload: Arc<Overload>,
    mut gauges: Gauges,
    workers: Vec<UnboundedSender<Order>>,
) {
    let mut before = Level::Normal;
    loop {
        let Some(snapshot) = status.snapshot() else { return };
        let config = &snapshot.config.sections.overload;
        let level = gauges.look(config, &overload);
        overload.publish(level);
        let reset = level == Level::Reset;
        // What is lost by degrees is lost once; streams go on being reset for as long as it takes.
        if reset || (level > before && level >= Level::NoConnections) {
            for (_, worker) in workers.iter().enumerate().filter(|(index, _)| overload.ask(*index)) {
                // A worker that is gone has nothing to give up.
                let _ = worker.send(Order::Shed { reset });
            }
        }
        before = level;
        let wait = config.refresh_interval.max(SHORTEST);
        // A snapshot is not to be kept for the time of a sleep.
        drop(snapshot);
        tokio::time::sleep(wait).await;
    }
}
