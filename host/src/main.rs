//! The `weir` command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A mesh gateway and sidecar that runs sandboxed Proxy-Wasm plugins on every connection and request.
#[derive(Debug, Parser)]
#[command(name = "weir", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the proxy. SIGTERM drains and ends it, SIGHUP reloads.
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Prints the JSON Schema of the configuration.
    Schema,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run { config } => run(&config),
        Command::Schema => schema(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(config: &std::path::Path) -> anyhow::Result<()> {
    let log = weir::telemetry::trace::init()?;
    let result = weir::app::run(config);
    log.flush();
    result
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn schema() -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(&weir::config::schema())?);
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the command's output")]
fn report(error: &anyhow::Error) {
    eprintln!("{error:#}");
}
