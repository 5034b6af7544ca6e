//! What is counted of the requests of a route.

use crate::telemetry::metrics::{Counter, Registry};

/// Requests by the class of the status that was sent, and those that were cut before one was.
#[derive(Debug, Clone)]
pub struct Requests([Counter; 6]);

impl Requests {
    /// Those of a route of a listener; without a name, those that had no route.
    pub fn new(registry: &Registry, listener: &str, route: &str) -> Self {
        Self(["cut", "1xx", "2xx", "3xx", "4xx", "5xx"].map(|code| {
            let labels = [("listener", listener), ("route", route), ("code", code)];
            let help = "Requests, by route and class of the status sent.";
            registry.counter("weir_http_requests_total", help, &labels)
        }))
    }

    /// Counts a request that is over.
    pub fn count(&self, status: Option<u16>) {
        let class = status.map_or(0, |status| usize::from(status / 100));
        if let Some(counter) = self.0.get(class) {
            counter.inc();
        }
    }
}
