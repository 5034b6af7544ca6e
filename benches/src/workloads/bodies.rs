//! Responses with bodies: what a gigabyte costs.

use crate::lab::{Built, Lab, Make};
use crate::report::Report;
use crate::rounds::{GIGABYTE, Plan, compare};
use crate::tools::Tools;
use crate::workloads::http::candidates;
use crate::workloads::loads::wrk;

/// Which.
#[derive(Debug, Clone, Copy)]
pub struct Body {
    /// 10 MiB rather than 64 KiB.
    pub is_large: bool,
    /// Over TLS.
    pub is_encrypted: bool,
}

/// What is read counts, whole responses or not.
pub fn run(report: Report, tools: &Tools, built: &Built, plan: &Plan, body: Body) -> anyhow::Result<Report> {
    let mut lab = Lab::start(tools, built)?;
    let (scheme, path) =
        (if body.is_encrypted { "https" } else { "http" }, if body.is_large { "10m" } else { "64k" });
    let connections = if body.is_large { 8 } else { 32 };
    let candidates = candidates(&lab.proxies("http")?, |proxy| match (body.is_encrypted, proxy.make) {
        (true, _) => "tls_port",
        (false, Make::HaProxy) => "bodies",
        (false, Make::Nginx | Make::Envoy | Make::Weir) => "plain",
    })?;
    compare(report, plan, GIGABYTE, &candidates, &|candidate, duration| {
        let url = format!("{scheme}://127.0.0.1:{}/files/{path}", candidate.port);
        Ok(wrk(&url, connections, duration)?.gigabytes)
    })
}
