//! What is counted of a listener.

use std::time::Duration;

use crate::http::h1::{BodyError, HeadError};
use crate::http::h2::Refusal;
use crate::net::close::CloseReason;
use crate::route::{Requests, Route};
use crate::telemetry::metrics::{Counter, Gauge, Histogram, Registry};

/// The words for why a request is not answered by its upstream. `proxy/reply.rs` says which is which.
pub const FAILURES: [&str; 19] = [
    "no_route",
    "no_endpoints",
    "connect_timeout",
    "connect_failure",
    "private_address",
    "upstream_closed",
    "upstream_reset",
    "upstream_interim_responses",
    "upstream_head_too_large",
    "upstream_malformed_head",
    "upstream_body_cut",
    "upstream_timeout",
    "stream_idle_timeout",
    "request_timeout",
    "request_body_too_slow",
    "response_body_too_slow",
    "overload",
    "malformed_request_body",
    "client_gone",
];

/// What is counted of a listener.
#[derive(Debug, Clone)]
pub struct ListenerMetrics {
    /// Connections that were accepted.
    pub accepted: Counter,
    /// Connections that are open.
    pub open: Gauge,
    /// Bytes from downstream.
    pub received: Counter,
    /// Bytes to downstream.
    pub sent: Counter,
    /// Requests that could not be read, by reason.
    refused: Vec<(&'static str, Counter)>,
    /// Requests that their upstream did not answer, by reason.
    failed: [Counter; FAILURES.len()],
    closed: [Counter; CloseReason::ALL.len()],
    /// Requests without a route.
    unrouted: Requests,
    durations: Histogram,
}

impl ListenerMetrics {
    pub(super) fn new(registry: &Registry, listener: &str) -> Self {
        let labels = [("listener", listener)];
        Self {
            accepted: registry.counter("weir_listener_connections_total", "Connections accepted.", &labels),
            open: registry.gauge("weir_listener_connections", "Connections that are open.", &labels),
            received: registry.counter(
                "weir_listener_received_bytes_total",
                "Bytes from downstream.",
                &labels,
            ),
            sent: registry.counter("weir_listener_sent_bytes_total", "Bytes to downstream.", &labels),
            refused: HeadError::ALL
                .iter()
                .map(|error| error.as_str())
                .chain(BodyError::REFUSED)
                .chain(Refusal::WORDS)
                .map(|reason| {
                    let labels = [("listener", listener), ("reason", reason)];
                    let help = "Requests that could not be read, by reason.";
                    (reason, registry.counter("weir_http_refused_total", help, &labels))
                })
                .collect(),
            failed: FAILURES.map(|reason| {
                let labels = [("listener", listener), ("reason", reason)];
                let help = "Requests that no upstream answered to the end, by reason.";
                registry.counter("weir_http_failures_total", help, &labels)
            }),
            unrouted: Requests::new(registry, listener, ""),
            durations: registry.histogram(
                "weir_http_request_duration_seconds",
                "Time from request to end.",
                &labels,
            ),
            closed: CloseReason::ALL.map(|reason| {
                let labels = [("listener", listener), ("reason", reason.as_str())];
                let help = "Connections that Weir closed instead of serving them, by reason.";
                registry.counter("weir_listener_closed_total", help, &labels)
            }),
        }
    }

    /// Counts a request that is over.
    pub fn request(&self, route: Option<&Route>, status: Option<u16>, duration: Duration) {
        route.map_or(&self.unrouted, |route| &route.requests).count(status);
        self.durations.record(duration);
    }

    /// Counts a request that could not be read.
    pub fn refuse(&self, reason: &str) {
        if let Some((_, counter)) = self.refused.iter().find(|(known, _)| *known == reason) {
            counter.inc();
        }
    }

    /// Counts a request that its upstream did not answer.
    pub fn fail(&self, reason: &str) {
        let known = FAILURES.iter().zip(&self.failed).find(|(known, _)| **known == reason);
        known.into_iter().for_each(|(_, counter)| counter.inc());
    }

    /// Connections that were closed for a reason.
    pub fn closed(&self, reason: CloseReason) -> Option<&Counter> {
        CloseReason::ALL
            .iter()
            .zip(&self.closed)
            .find(|(known, _)| **known == reason)
            .map(|(_, counter)| counter)
    }
}
