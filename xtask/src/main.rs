//! `cargo xtask`: what needs more than one cargo call.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::cargo::{build_weir, cargo, run};
use xtask::guests;

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
    /// Runs the whole test suite. Further arguments go to `cargo test`.
    Test {
        /// Arguments for `cargo test`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Build => build(),
        Command::Test { args } => test(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the command's output")]
fn say(line: &str) {
    eprintln!("{line}");
}

fn build() -> anyhow::Result<()> {
    let weir = build_weir(true)?;
    let plugins = guests::build_filters()?;
    say(&format!("built {} and the plugins in {}", weir.display(), plugins.display()));
    Ok(())
}

fn test(args: &[String]) -> anyhow::Result<()> {
    guests::install_target()?;
    run(cargo(&["test", "--workspace"]).args(args))
}
