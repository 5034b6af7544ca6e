//! How much later answers come, at a rate that fills nobody.

use crate::lab::{Built, Lab, free_ports};
use crate::machine::{LOAD, PROXY};
use crate::process::pinned;
use crate::report::{Bar, Report};
use crate::rounds::Plan;
use crate::spread::Spread;
use crate::tools::Tools;
use crate::workloads::http::candidates;
use crate::workloads::loads::{number_of, output};

const RATE: &str = "10000";

/// Microseconds.
#[derive(Debug, Clone, Copy)]
struct Latency {
    p50: f64,
    p99: f64,
}

/// Straight to the upstream, through a bare TCP hop, and through each proxy. What counts is what a proxy adds over the hop.
pub fn run(mut report: Report, tools: &Tools, built: &Built, plan: &Plan) -> anyhow::Result<Report> {
    let mut lab = Lab::start(tools, built)?;
    let upstream = lab.upstream("upstream")?;
    let hop = free_ports(1)?.first().copied().unwrap_or_default();
    lab.load_process(PROXY, &["hop", &hop.to_string(), &upstream.to_string()], hop)?;
    let mut all = vec![("no proxy".to_owned(), upstream), ("a bare TCP hop".to_owned(), hop)];
    all.extend(candidates(&lab.proxies("http")?, |_| "plain")?.into_iter().map(|one| (one.name, one.port)));
    let mut rounds: Vec<Vec<Latency>> = Vec::new();
    for _ in 0..plan.rounds {
        let turn = all.iter().map(|(_, port)| paced(built, *port, plan));
        rounds.push(turn.collect::<anyhow::Result<_>>()?);
    }
    report.columns =
        ["", "p50, µs", "p99, µs", "p50 over the hop", "p99 over the hop"].map(str::to_owned).into();
    report.bar_title = "p99, µs".into();
    for (at, (name, _)) in all.iter().enumerate() {
        let of = |value: &dyn Fn(Latency, Latency) -> f64| {
            let pairs = rounds.iter().filter_map(|round| Some((*round.get(at)?, *round.get(1)?)));
            Spread::of(pairs.map(|(own, hop)| value(own, hop)))
        };
        let (p50, p99) = (of(&|own, _| own.p50), of(&|own, _| own.p99));
        let added = [of(&|own, hop| own.p50 - hop.p50), of(&|own, hop| own.p99 - hop.p99)];
        let mut row = vec![name.clone(), p50.show(0), p99.show(0)];
        row.extend(added.map(|added| if at < 2 { String::new() } else { added.show(0) }));
        report.rows.push(row);
        report.bars.push(Bar { name: name.clone(), value: p99 });
    }
    Ok(report)
}

/// The generator spins, so it has to be the one that yields to the upstream on its core.
fn paced(built: &Built, port: u16, plan: &Plan) -> anyhow::Result<Latency> {
    let mut command = pinned(LOAD, "chrt".as_ref());
    command.args(["-i", "0"]).arg(&built.load);
    command.args(["paced", &port.to_string(), &plan.turn.as_secs().to_string(), RATE]);
    let text = output(&mut command)?;
    Ok(Latency { p50: number_of(&text, "p50")?, p99: number_of(&text, "p99")? })
}
