//! What is measured, by name.

mod bodies;
mod connections;
mod growth;
mod http;
mod latency;
mod loads;
mod memory;
mod start;
mod workers;

use clap::ValueEnum;

use crate::lab::Built;
use crate::report::Report;
use crate::rounds::Plan;
use crate::tools::Tools;
use crate::workloads::bodies::Body;

/// A workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// HTTP/1.1, keep-alive, a small response.
    Http1,
    /// The same with filters: one, three, one with an instance for each stream.
    Filters,
    /// The same with one filter, on our SDK and on the official crate.
    Sdks,
    /// HTTP/1.1 and TLS termination.
    Tls,
    /// HTTP/2 and TLS to an HTTP/1.1 upstream.
    Http2,
    /// Mutual TLS on both sides, keep-alive.
    Mtls,
    /// 64 KiB responses over HTTP/1.1.
    Bodies64k,
    /// 10 MiB responses over HTTP/1.1.
    Bodies10m,
    /// 64 KiB responses over HTTP/1.1 and TLS.
    Bodies64kTls,
    /// 10 MiB responses over HTTP/1.1 and TLS.
    Bodies10mTls,
    /// New connections through TLS passthrough, by one of a thousand server names.
    Connections,
    /// Bytes in bulk through TLS passthrough.
    Bulk,
    /// Latency at 10,000 requests in a second.
    Latency,
    /// Memory for each idle connection, and for each instance of a plugin.
    Memory,
    /// Start with ten plugins and a warm cache, until it is ready.
    Start,
    /// The same request with many routes, clusters and plugins.
    Growth,
    /// Two workers beside one.
    Workers,
}

impl Workload {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 17] = [
        Self::Http1,
        Self::Filters,
        Self::Sdks,
        Self::Tls,
        Self::Http2,
        Self::Mtls,
        Self::Bodies64k,
        Self::Bodies10m,
        Self::Bodies64kTls,
        Self::Bodies10mTls,
        Self::Connections,
        Self::Bulk,
        Self::Latency,
        Self::Memory,
        Self::Start,
        Self::Growth,
        Self::Workers,
    ];

    /// The name on the command line, and of the files with the results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Filters => "filters",
            Self::Sdks => "sdks",
            Self::Tls => "tls",
            Self::Http2 => "http2",
            Self::Mtls => "mtls",
            Self::Bodies64k => "bodies64k",
            Self::Bodies10m => "bodies10m",
            Self::Bodies64kTls => "bodies64k-tls",
            Self::Bodies10mTls => "bodies10m-tls",
            Self::Connections => "connections",
            Self::Bulk => "bulk",
            Self::Latency => "latency",
            Self::Memory => "memory",
            Self::Start => "start",
            Self::Growth => "growth",
            Self::Workers => "workers",
        }
    }

    /// What it does, in a line.
    pub fn about(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1, keep-alive, 12 bytes (wrk, 32 connections)",
            Self::Filters => {
                "The same with three headers read, one of which decides, and two set: by rules of their own, in Wasm"
            }
            Self::Sdks => "The same filter in Wasm, on weir-sdk and on the official crate",
            Self::Tls => "HTTP/1.1 over TLS 1.3 to a plain upstream (wrk, 32 connections)",
            Self::Http2 => "HTTP/2 over TLS to an HTTP/1.1 upstream (h2load, 8 connections of 16 streams)",
            Self::Mtls => "HTTP/1.1 over mutual TLS on both sides (bench-load, 32 connections)",
            Self::Bodies64k => "Responses of 64 KiB over HTTP/1.1 (wrk, 32 connections)",
            Self::Bodies10m => "Responses of 10 MiB over HTTP/1.1 (wrk, 8 connections)",
            Self::Bodies64kTls => "Responses of 64 KiB over HTTP/1.1 and TLS (wrk, 32 connections)",
            Self::Bodies10mTls => "Responses of 10 MiB over HTTP/1.1 and TLS (wrk, 8 connections)",
            Self::Connections => {
                "New connections through TLS passthrough, 1,000 server names, 50 endpoints (bench-load, 64 at a time; \
                 in Weir the plugin sni-router decides)"
            }
            Self::Bulk => {
                "Bytes through TLS passthrough (bench-load, 4 streams; in Weir the plugin sni-router decides)"
            }
            Self::Latency => {
                "Latency of HTTP/1.1 at 10,000 requests/s, open loop (bench-load, 16 connections)"
            }
            Self::Memory => {
                "Memory (Pss) for each idle keep-alive connection, and for each idle instance of a plugin"
            }
            Self::Start => {
                "From the start of the process to `GET /ready` with 200: ten plugins, a warm cache"
            }
            Self::Growth => "HTTP/1.1 as in `http1` with many routes, clusters, plugins",
            Self::Workers => "HTTP/1.1 as in `http1`, two workers beside one",
        }
    }

    /// The programs that it needs.
    pub fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Http1
            | Self::Filters
            | Self::Sdks
            | Self::Tls
            | Self::Bodies64k
            | Self::Bodies10m
            | Self::Bodies64kTls
            | Self::Bodies10mTls
            | Self::Growth
            | Self::Workers => &["taskset", "nginx", "wrk"],
            Self::Http2 => &["taskset", "nginx", "h2load"],
            Self::Mtls | Self::Memory => &["taskset", "nginx"],
            Self::Latency => &["taskset", "nginx", "chrt"],
            Self::Connections | Self::Bulk | Self::Start => &["taskset"],
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// When something does not start, or a load fails.
    pub fn run(self, tools: &Tools, built: &Built, plan: &Plan) -> anyhow::Result<Report> {
        let report = Report::new(self.name(), self.about());
        match self {
            Self::Http1 => http::http1(report, tools, built, plan),
            Self::Filters => http::filters(report, tools, built, plan),
            Self::Sdks => http::sdks(report, tools, built, plan),
            Self::Tls => http::tls(report, tools, built, plan),
            Self::Http2 => http::http2(report, tools, built, plan),
            Self::Mtls => http::mtls(report, tools, built, plan),
            Self::Bodies64k => {
                bodies::run(report, tools, built, plan, Body { is_large: false, is_encrypted: false })
            }
            Self::Bodies10m => {
                bodies::run(report, tools, built, plan, Body { is_large: true, is_encrypted: false })
            }
            Self::Bodies64kTls => {
                bodies::run(report, tools, built, plan, Body { is_large: false, is_encrypted: true })
            }
            Self::Bodies10mTls => {
                bodies::run(report, tools, built, plan, Body { is_large: true, is_encrypted: true })
            }
            Self::Connections => connections::flood(report, tools, built, plan),
            Self::Bulk => connections::bulk(report, tools, built, plan),
            Self::Latency => latency::run(report, tools, built, plan),
            Self::Memory => memory::run(report, tools, built, plan),
            Self::Start => start::run(report, tools, built, plan),
            Self::Growth => growth::run(report, tools, built, plan),
            Self::Workers => workers::run(report, tools, built, plan),
        }
    }
}
