//! TLS passthrough: connections and bytes.

use crate::lab::{Built, Lab, Make};
use crate::passthrough::BULK;
use crate::report::Report;
use crate::rounds::{CONNECTION, GIGABYTE, Plan, compare};
use crate::tools::Tools;
use crate::workloads::http::candidates;
use crate::workloads::loads::own;

/// New connections. None of them makes a handshake: it would be the endpoints' work.
pub fn flood(report: Report, tools: &Tools, built: &Built, plan: &Plan) -> anyhow::Result<Report> {
    let mut lab = Lab::start(tools, built)?;
    let candidates = candidates(&lab.proxies("passthrough")?, |_| "passthrough")?;
    compare(report, plan, CONNECTION, &candidates, &|candidate, duration| {
        let (port, seconds) = (candidate.port.to_string(), duration.as_secs().to_string());
        own(built, &["connections", &port, &seconds, "service-{}.bench.internal"], "count")
    })
}

/// Bytes from the upstream.
pub fn bulk(report: Report, tools: &Tools, built: &Built, plan: &Plan) -> anyhow::Result<Report> {
    let mut lab = Lab::start(tools, built)?;
    let candidates = candidates(&lab.proxies("passthrough")?, |proxy| match proxy.make {
        // Set up for it: `splice-response`, and larger buffers.
        Make::HaProxy | Make::Nginx => "bulk",
        Make::Envoy | Make::Weir => "passthrough",
    })?;
    compare(report, plan, GIGABYTE, &candidates, &|candidate, duration| {
        let (port, seconds) = (candidate.port.to_string(), duration.as_secs().to_string());
        Ok(own(built, &["stream", &port, &seconds, BULK], "bytes")? / 1e9)
    })
}
