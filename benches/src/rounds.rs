//! Turns: in every round each candidate gets the same load once, one after the other (A-B-C-A-B-C), and neighbours are
//! compared.

use std::time::{Duration, Instant};

use crate::process::cpu_time;
use crate::report::{Bar, Report};
use crate::spread::Spread;

/// How long it is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How often each candidate has its turn.
    pub rounds: usize,
    /// How long each turn is.
    pub turn: Duration,
    /// Whether it is only to look.
    pub is_quick: bool,
}

/// Whose work is measured.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// What the table calls it.
    pub name: String,
    /// The process that does the work.
    pub pid: u32,
    /// Where it listens.
    pub port: u16,
    /// Whether it is a peer: one that Weir is compared with.
    pub is_peer: bool,
    /// Which candidate does the same without what this one does besides (a filter), and how much of it.
    pub base: Option<usize>,
}

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub struct Unit {
    /// In the singular.
    pub name: &'static str,
    /// How many of the time's unit a second has.
    pub per_second: f64,
    /// The unit of the time that one takes.
    pub time: &'static str,
}

/// Requests, at microseconds each.
pub const REQUEST: Unit = Unit { name: "request", per_second: 1e6, time: "µs" };
/// Connections, at microseconds each.
pub const CONNECTION: Unit = Unit { name: "connection", per_second: 1e6, time: "µs" };
/// Gigabytes (10^9), at milliseconds each.
pub const GIGABYTE: Unit = Unit { name: "GB", per_second: 1e3, time: "ms" };

/// What a turn showed.
#[derive(Debug, Clone, Copy)]
struct Measured {
    /// Units in a second.
    rate: f64,
    /// The proxy's CPU time for one, user and system.
    cpu: f64,
    /// The part of its core that the proxy used.
    core: f64,
}

/// Below this part of its core it is not the proxy whose limit was measured.
const BUSY: f64 = 0.97;

/// Puts load on each candidate in turn. `load` does it for that long, and returns how many units were done.
///
/// # Errors
/// When a load fails.
pub fn compare(
    report: Report,
    plan: &Plan,
    unit: Unit,
    candidates: &[Candidate],
    load: &dyn Fn(&Candidate, Duration) -> anyhow::Result<f64>,
) -> anyhow::Result<Report> {
    let mut rounds: Vec<Vec<Measured>> = Vec::new();
    for round in 0..=plan.rounds {
        // The first round warms up: connections to the upstream, caches, the processor's clock.
        let duration = if round == 0 { Duration::from_secs(1) } else { plan.turn };
        let mut turns = Vec::new();
        for candidate in candidates {
            turns.push(turn(candidate, duration, unit, load)?);
        }
        if round > 0 {
            rounds.push(turns);
        }
    }
    Ok(tell(report, unit, candidates, &rounds))
}

fn turn(
    candidate: &Candidate,
    duration: Duration,
    unit: Unit,
    load: &dyn Fn(&Candidate, Duration) -> anyhow::Result<f64>,
) -> anyhow::Result<Measured> {
    let before = cpu_time(candidate.pid)?;
    let start = Instant::now();
    let count = load(candidate, duration)?;
    let wall = start.elapsed();
    let spent = cpu_time(candidate.pid)?.saturating_sub(before);
    Ok(Measured {
        rate: count / wall.as_secs_f64(),
        cpu: spent.as_secs_f64() * unit.per_second / count,
        core: spent.as_secs_f64() / wall.as_secs_f64(),
    })
}

/// The peer that spends least, by the median of all rounds.
fn best_peer(candidates: &[Candidate], rounds: &[Vec<Measured>]) -> Option<usize> {
    let median = |at: usize| Spread::of(rounds.iter().filter_map(|round| Some(round.get(at)?.cpu))).median;
    // A peer with a filter is compared with a peer with a filter.
    let peers =
        candidates.iter().enumerate().filter(|(_, candidate)| candidate.is_peer && candidate.base.is_none());
    peers.map(|(at, _)| at).min_by(|a, b| median(*a).total_cmp(&median(*b)))
}

fn tell(mut report: Report, unit: Unit, candidates: &[Candidate], rounds: &[Vec<Measured>]) -> Report {
    let best = best_peer(candidates, rounds);
    let has_bases = candidates.iter().any(|candidate| candidate.base.is_some());
    let best_name =
        best.and_then(|best| candidates.get(best)).map_or("the smaller", |best| best.name.as_str());
    let cost = format!("{} of CPU per {}", unit.time, unit.name);
    let digits = if unit.name == "GB" { 0 } else { 2 };
    let per_second = if unit.name == "GB" { "GB/s".to_owned() } else { format!("{}s/s", unit.name) };
    report.columns =
        vec!["".into(), per_second, cost.clone(), "core used, %".into(), format!("ratio to {best_name}")];
    if has_bases {
        report.columns.push(format!("added, {}", unit.time));
    }
    for (at, candidate) in candidates.iter().enumerate() {
        let of = |other: Option<usize>, value: &dyn Fn(&Measured, &Measured) -> f64| {
            let pairs = rounds.iter().filter_map(|round| Some((round.get(at)?, round.get(other?)?)));
            Spread::of(pairs.map(|(own, other)| value(own, other)))
        };
        let own = |value: &dyn Fn(&Measured) -> f64| of(Some(at), &|own, _| value(own));
        // Where there is no peer, what grew is compared with what did not.
        let against = best.or(candidate.base);
        let (cpu, core) = (own(&|own| own.cpu), own(&|own| own.core));
        let mut row = vec![
            candidate.name.clone(),
            own(&|own| own.rate).show(if unit.name == "GB" { 2 } else { 0 }),
            cpu.show(digits),
            own(&|own| own.core * 100.0).show(0),
            against.map_or_else(String::new, |_| of(against, &|own, other| own.cpu / other.cpu).show(2)),
        ];
        if has_bases {
            let added = of(candidate.base, &|own, base| own.cpu - base.cpu);
            row.push(candidate.base.map_or_else(String::new, |_| added.show(2)));
        }
        report.rows.push(row);
        report.bars.push(Bar { name: candidate.name.clone(), value: cpu });
        if core.median < BUSY {
            report.notes.push(format!(
                "{} used {:.0} % of its core: the load limited its rate, and its CPU time per {} is that of a proxy \
                 that is not full.",
                candidate.name,
                core.median * 100.0,
                unit.name
            ));
        }
    }
    report.bar_title = cost;
    report
}
