//! Requests with small answers.

use crate::lab::{Built, Lab, Make, Proxy};
use crate::report::Report;
use crate::rounds::{Candidate, Plan, REQUEST, compare};
use crate::tools::Tools;
use crate::workloads::loads::{h2load, own, wrk};

/// Connections of wrk.
pub const CONNECTIONS: usize = 32;

/// A candidate for each proxy, on its port of that name.
///
/// # Errors
/// When there is no such port.
pub fn candidates(
    proxies: &[Proxy],
    port: impl Fn(&Proxy) -> &'static str,
) -> anyhow::Result<Vec<Candidate>> {
    let candidate = |proxy: &Proxy| {
        Ok(Candidate {
            name: proxy.make.name().to_owned(),
            pid: proxy.pid,
            port: proxy.port(port(proxy))?,
            is_peer: proxy.make != Make::Weir,
            base: None,
        })
    };
    proxies.iter().map(candidate).collect()
}

/// Without a filter.
pub fn http1(report: Report, tools: &Tools, built: &Built, plan: &Plan) -> anyhow::Result<Report> {
    let mut lab = Lab::start(tools, built)?;
    let candidates = candidates(&lab.proxies("http")?, |_| "plain")?;
    compare(report, plan, REQUEST, &candidates, &|candidate, duration| plain(candidate, duration))
}

/// wrk on a plain port.
pub fn plain(candidate: &Candidate, duration: std::time::Duration) -> anyhow::Result<f64> {
    Ok(wrk(&format!("http://127.0.0.1:{}/", candidate.port), CONNECTIONS, duration)?.requests)
}

/// The same work for each request: by rules of the peers' own, in Wasm, and without it.
pub fn filters(report: Report, tools: &Tools, built: &Built, plan: &Plan) -> anyhow::Result<Report> {
    let mut lab = Lab::start(tools, built)?;
    let proxies = lab.proxies("http")?;
    let all = with_filters(&proxies, |make| match make {
        Make::Nginx | Make::HaProxy => &[("rules", "filter")],
        Make::Envoy => &[("one filter", "filter"), ("three filters", "filters_3")],
        Make::Weir => {
            &[("one filter", "filter"), ("three filters", "filters_3"), ("one, isolation: stream", "stream")]
        }
    })?;
    compare(report, plan, REQUEST, &all, &|candidate, duration| plain(candidate, duration))
}

/// One filter, written twice.
pub fn sdks(report: Report, tools: &Tools, built: &Built, plan: &Plan) -> anyhow::Result<Report> {
    let mut lab = Lab::start(tools, built)?;
    let proxies =
        lab.proxies("http")?.into_iter().filter(|proxy| matches!(proxy.make, Make::Envoy | Make::Weir));
    let proxies: Vec<Proxy> = proxies.collect();
    let all = with_filters(&proxies, |_| &[("weir-sdk", "filter"), ("official crate", "official")])?;
    compare(report, plan, REQUEST, &all, &|candidate, duration| plain(candidate, duration))
}

/// Each proxy without a filter, and then with those that it has, by what they are called and their ports.
fn with_filters(
    proxies: &[Proxy],
    kinds: impl Fn(Make) -> &'static [(&'static str, &'static str)],
) -> anyhow::Result<Vec<Candidate>> {
    let mut all = candidates(proxies, |_| "plain")?;
    for (at, proxy) in proxies.iter().enumerate() {
        for (kind, port) in kinds(proxy.make) {
            all.push(Candidate {
                name: format!("{}, {kind}", proxy.make.name()),
                pid: proxy.pid,
                port: proxy.port(port)?,
                is_peer: proxy.make != Make::Weir,
                base: Some(at),
            });
        }
    }
    Ok(all)
}

/// Over TLS.
pub fn tls(report: Report, tools: &Tools, built: &Built, plan: &Plan) -> anyhow::Result<Report> {
    let mut lab = Lab::start(tools, built)?;
    let candidates = candidates(&lab.proxies("http")?, |_| "tls_port")?;
    compare(report, plan, REQUEST, &candidates, &|candidate, duration| {
        Ok(wrk(&format!("https://127.0.0.1:{}/", candidate.port), CONNECTIONS, duration)?.requests)
    })
}

/// HTTP/2 over TLS.
pub fn http2(report: Report, tools: &Tools, built: &Built, plan: &Plan) -> anyhow::Result<Report> {
    let mut lab = Lab::start(tools, built)?;
    let candidates = candidates(&lab.proxies("http")?, |_| "tls_port")?;
    compare(report, plan, REQUEST, &candidates, &|candidate, duration| h2load(candidate.port, duration))
}

/// Mutual TLS on both sides.
pub fn mtls(report: Report, tools: &Tools, built: &Built, plan: &Plan) -> anyhow::Result<Report> {
    let mut lab = Lab::start(tools, built)?;
    let candidates = candidates(&lab.proxies("http")?, |_| "mtls")?;
    let folder = lab.path("tls").display().to_string();
    let connections = CONNECTIONS.to_string();
    compare(report, plan, REQUEST, &candidates, &|candidate, duration| {
        let (port, seconds) = (candidate.port.to_string(), duration.as_secs().to_string());
        own(built, &["keep-alive", &port, &seconds, &connections, &folder], "count")
    })
}
