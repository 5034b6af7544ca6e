//! Weir beside nginx: the same load, in turn, on one core.
//!
//! Each proxy runs with one worker on core 0; the load (`wrk`) and the upstream (an nginx that answers by itself)
//! share core 1. In every round each candidate gets the same load once, one after the other. Absolute figures
//! drift from minute to minute: read the ratios, which compare neighbours of the same round.

mod candidates;
mod load;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::candidates::Bench;
use crate::load::{Measured, measure};

/// Runs Weir beside nginx on one core, in turn, and prints what a request costs each.
#[derive(Debug, Parser)]
struct Args {
    /// The `weir` command, built for release.
    #[arg(long, default_value = "target/release/weir")]
    weir: PathBuf,
    /// The folder of the standard filters.
    #[arg(long, default_value = "target/plugins")]
    plugins: PathBuf,
    /// How often each candidate has its turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load in each turn.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Connections of the load.
    #[arg(long, default_value_t = 32)]
    connections: usize,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let bench = Bench::start(&args.weir, &args.plugins)?;
    let names: Vec<&str> = bench.candidates.iter().map(|candidate| candidate.name).collect();
    let mut rounds: Vec<Vec<Measured>> = Vec::new();
    for round in 0..=args.rounds {
        // The first round warms up: connections to the upstream, caches, the processor's clock.
        let seconds = if round == 0 { 1 } else { args.seconds };
        let turn = bench
            .candidates
            .iter()
            .map(|candidate| measure(candidate, args.connections, Duration::from_secs(seconds)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        if round > 0 {
            rounds.push(turn);
        }
    }
    report(&names, &rounds);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn report(names: &[&str], rounds: &[Vec<Measured>]) {
    println!("min / median / max of {} rounds", rounds.len());
    println!(
        "{:<26}{:>30}{:>26}{:>18}{:>26}",
        "", "requests/s", "us CPU/request", "core used, %", "CPU / nginx's"
    );
    for (at, name) in names.iter().enumerate() {
        let of = |value: &dyn Fn(&Measured, &Measured) -> f64| {
            let pairs = rounds.iter().filter_map(|round| Some((round.get(at)?, round.first()?)));
            Spread::of(pairs.map(|(own, nginx)| value(own, nginx)))
        };
        let requests = of(&|own, _| own.requests_per_second);
        let cpu = of(&|own, _| own.cpu_per_request);
        let busy = of(&|own, _| own.core_used * 100.0);
        let ratio = of(&|own, nginx| own.cpu_per_request / nginx.cpu_per_request);
        println!(
            "{name:<26}{:>30}{:>26}{:>18}{:>26}",
            requests.show(0),
            cpu.show(2),
            busy.show(0),
            ratio.show(2)
        );
    }
}

/// The smallest, the middle and the largest of some numbers.
struct Spread(f64, f64, f64);

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        Self(at(0), at(values.len() / 2), at(values.len().saturating_sub(1)))
    }

    fn show(&self, digits: usize) -> String {
        let Self(min, median, max) = self;
        format!("{min:.digits$} / {median:.digits$} / {max:.digits$}")
    }
}
