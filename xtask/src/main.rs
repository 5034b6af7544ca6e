//! `cargo xtask`: what needs more than one cargo call.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::cargo::build_weir;
use xtask::{bench, ci, demo, exchange, guests, parity, say, soak};

/// What needs more than one cargo call.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Builds the release `weir` and the standard filters.
    Build,
    /// Runs a gateway, two sidecars and their services, and prints commands that show what they do.
    Demo {
        /// Runs the commands instead of printing them, and compares what they show with what they should.
        #[arg(long)]
        check: bool,
    },
    /// Runs the whole test suite. Further arguments go to `cargo test`.
    Test {
        /// Arguments for `cargo test`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Runs Weir beside nginx, HAProxy and Envoy on one core: `http1`, `tls`, `memory`, ... or everything.
    Bench {
        /// Which workloads; `--quick`, `--rounds=N`, `--seconds=N`, `--help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Counts the instructions of one exchange under callgrind, and compares them with `benches/baseline/exchange.txt`.
    Count {
        /// Puts them into that file instead.
        #[arg(long)]
        update: bool,
    },
    /// Runs the scenarios of `tests/parity` in a real Envoy and in Weir, and the cases of the standard filters in Envoy.
    Parity {
        /// Parts of the names of scenarios; `--update` writes down what both do. `cases` stands for the cases.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Runs for long: `hostile` guests beside neighbours, `reload`s under load, random `modules`, `takeover`s and `upstream-kills` under load, `pairing` of requests and answers.
    Soak {
        /// Which one, and parts of the names of guests; `--seconds=N`, `--baseline=N`, `--runs=N`, `--count=N`, `--beside-envoy`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// What a change must pass: format, lints, dependencies, tests, the demo's commands, instructions of an exchange.
    Ci,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Build => build(),
        Command::Demo { check } => demo::run(check),
        Command::Test { args } => ci::test(&args),
        Command::Bench { args } => bench::side_by_side(&args),
        Command::Count { update } => exchange::check(update),
        Command::Parity { args } => parity::run_scenarios(&args),
        Command::Soak { args } => soak::soak(&args),
        Command::Ci => ci::ci(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn build() -> anyhow::Result<()> {
    let weir = build_weir(true)?;
    let plugins = guests::build_filters()?;
    say(&format!("built {} and the plugins in {}", weir.display(), plugins.display()));
    Ok(())
}
