//! Weir beside its peers: the same load, in turn, on one core.
//!
//! Each proxy runs with one worker on core 0; the load and the upstream share core 1. In every round each candidate gets
//! the same load once, one after the other. Absolute figures drift from minute to minute: read the ratios, which compare
//! neighbours of the same round.
//!
//! workload -> lab (certificates, upstreams, proxies) -> rounds of turns -> report

mod lab;
mod machine;
mod passthrough;
mod plot;
mod process;
mod report;
mod rounds;
mod spread;
mod template;
mod tools;
mod workloads;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;

use crate::lab::Built;
use crate::report::Report;
use crate::rounds::Plan;
use crate::workloads::Workload;

/// Runs Weir beside nginx, HAProxy and Envoy, whichever are installed, and says what each spends.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    /// What to run; everything, when nothing is named.
    workloads: Vec<Workload>,
    /// Three rounds of two seconds: to look, not to quote.
    #[arg(long)]
    quick: bool,
    /// How often each candidate has its turn. [default: 5]
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of load in each turn. [default: 5]
    #[arg(long)]
    seconds: Option<u64>,
    /// The `weir` command, built for release.
    #[arg(long, default_value = "target/release/weir", hide = true)]
    weir: PathBuf,
    /// The folder of the standard filters and of the filter that is measured.
    #[arg(long, default_value = "target/plugins", hide = true)]
    plugins: PathBuf,
    /// Where the results go.
    #[arg(long, default_value = "benches/results", hide = true)]
    results: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (rounds, seconds) = if args.quick { (3, 2) } else { (5, 5) };
    let plan = Plan {
        rounds: args.rounds.unwrap_or(rounds).max(1),
        turn: Duration::from_secs(args.seconds.unwrap_or(seconds).max(1)),
        is_quick: args.quick,
    };
    let tools = tools::find();
    let built = Built::new(&args.weir, &args.plugins)?;
    let about = machine::about(&tools, &plan);
    show(&about);
    let workloads = if args.workloads.is_empty() { Workload::ALL.to_vec() } else { args.workloads };
    let mut reports: Vec<Report> = Vec::new();
    for workload in workloads {
        show(&format!("\n{}: {}", workload.name(), workload.about()));
        if let Some(cure) = tools.cure(workload.needs()) {
            show(&format!("skipped: {cure} installs what it needs"));
            continue;
        }
        let report = workload.run(&tools, &built, &plan)?;
        show(&report.markdown());
        // After each, so that what breaks off leaves what was measured.
        report.write(&args.results, &about)?;
        reports.push(report);
    }
    ensure!(
        !reports.is_empty(),
        "nothing was measured: every workload needs something that is not installed"
    );
    report::write_all(&args.results, &about, &reports)?;
    show(&format!("written into {}", args.results.display()));
    Ok(())
}

/// Prints what the user asked for.
#[expect(clippy::print_stdout, reason = "the command's output")]
fn show(text: &str) {
    println!("{text}");
}
