//! The `weir` command.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use weir::app::Origin;
use weir::author::scaffold::Kind;
use weir::author::test::Wanted;
use weir::config::filter::{Isolation, Scheduling};
use weir::net::inherit::Inheritance;
use weir::overload::{descriptors, pages};
use weir::plugin::workshop;
use weir::report;
use weir::testbed::Manner;

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
    /// Runs the proxy. SIGTERM drains and ends it, SIGHUP reloads, SIGUSR1 opens the access log anew.
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Takes the listening sockets over from the process that runs this configuration. That drains once this one
        /// serves, and goes on as if nothing had been when this one does not come to that.
        #[arg(long)]
        takeover: bool,
    },
    /// Checks everything that `run` would read: the configuration, certificates, ports, and plugins with their trial.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Prints the JSON Schema of the configuration.
    Schema,
    /// Works on plugins.
    #[command(subcommand)]
    Plugin(PluginCommand),
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// Shows what a plugin is and what it needs, and whether Weir would load it.
    Inspect {
        /// The plugin.
        #[arg(value_name = "FILE.wasm")]
        file: PathBuf,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Writes a new plugin: a crate that builds, with cases, a gateway to try it in, and the SDK.
    New {
        /// Its name, or the path of its folder, which is not there yet.
        #[arg(value_name = "NAME")]
        path: PathBuf,
        /// What it filters.
        #[arg(long, value_enum, default_value = "http")]
        kind: Kind,
    },
    /// Builds the plugin of a folder, as small and as fast as can be, to NAME.wasm in it.
    Build {
        /// The folder of a crate, or one with a `weir-plugin.yaml`.
        #[arg(value_name = "FOLDER", default_value = ".")]
        folder: PathBuf,
    },
    /// Runs a plugin's cases: what it is to do to which request, written in YAML.
    Test {
        /// Files of cases, or folders of plugins, whose cases are in `cases/`. A folder's plugin is built before.
        #[arg(value_name = "PATH", default_value = ".")]
        paths: Vec<PathBuf>,
        /// The plugin, in the place of the folder's.
        #[arg(long, value_name = "FILE.wasm")]
        plugin: Option<PathBuf>,
        /// Runs only cases with this in their names.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Rewrites expectations that do not fit.
        #[arg(long)]
        update: bool,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
        /// Prints the JSON Schema of files of cases, for editors.
        #[arg(long)]
        schema: bool,
    },
    /// Measures what a plugin's callbacks cost in its cases: time, host calls, and bytes that pass to and fro.
    Bench {
        /// Files of cases, or folders of plugins, as for `test`.
        #[arg(value_name = "PATH", default_value = ".")]
        paths: Vec<PathBuf>,
        /// The plugin, in the place of the folder's.
        #[arg(long, value_name = "FILE.wasm")]
        plugin: Option<PathBuf>,
        /// Another plugin, to be compared with it.
        #[arg(long, value_name = "FILE.wasm")]
        against: Option<PathBuf>,
        /// Measures only cases with this in their names.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Which streams share an instance, in the place of what the files say.
        #[arg(long, value_name = "WHICH", value_parser = PossibleValuesParser::new(["worker", "stream"]).map(isolation))]
        isolation: Option<Isolation>,
        /// How the calls share a worker, in the place of what the files say.
        #[arg(long, value_name = "HOW", value_parser = PossibleValuesParser::new(["inline", "preemptible"]).map(scheduling))]
        scheduling: Option<Scheduling>,
        /// How often each case is run.
        #[arg(long, value_name = "NUMBER", default_value_t = 2_000)]
        runs: u64,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Compiles a plugin from standard input into a cache, within limits. `weir run` calls it.
    #[command(hide = true)]
    Compile {
        /// The cache.
        #[arg(long, value_name = "FOLDER")]
        cache: PathBuf,
        /// Memory that it may take, in bytes.
        #[arg(long)]
        memory: u64,
        /// CPU time that it may take, in seconds for each processor.
        #[arg(long)]
        cpu: u64,
    },
}

fn isolation(word: String) -> Isolation {
    if word == Isolation::Stream.word() { Isolation::Stream } else { Isolation::Worker }
}

fn scheduling(word: String) -> Scheduling {
    if word == Scheduling::Preemptible.word() { Scheduling::Preemptible } else { Scheduling::Inline }
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run { config, takeover } => run(&config, takeover),
        Command::Check { config, json } => report::check(&config, json),
        Command::Schema => report::schema(),
        Command::Plugin(PluginCommand::Inspect { file, json }) => report::inspect(&file, json),
        Command::Plugin(PluginCommand::New { path, kind }) => report::authors::new(&path, kind),
        Command::Plugin(PluginCommand::Build { folder }) => report::authors::build(&folder),
        Command::Plugin(PluginCommand::Test { schema: true, .. }) => report::authors::case_schema(),
        Command::Plugin(PluginCommand::Test { paths, plugin, only, update, json, .. }) => {
            report::authors::test(&Wanted { paths, plugin, only, update }, json)
        }
        Command::Plugin(PluginCommand::Bench {
            paths,
            plugin,
            against,
            only,
            isolation,
            scheduling,
            runs,
            json,
        }) => {
            let wanted = Wanted { paths, plugin, only, update: false };
            report::authors::bench(&wanted, against.as_ref(), Manner { isolation, scheduling }, runs, json)
        }
        Command::Plugin(PluginCommand::Compile { cache, memory, cpu }) => {
            return compile(&cache, memory, cpu);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// The exit status tells how it went, and the standard output why.
fn compile(cache: &Path, memory: u64, cpu: u64) -> ExitCode {
    let (said, status) = match workshop::child(cache, memory, cpu) {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(reason)) => (reason, workshop::REFUSED),
        Err(error) => (format!("{error:#}"), workshop::FAILED),
    };
    // Nobody listens any more only when the parent has ended.
    let _ = std::io::stdout().write_all(said.as_bytes());
    ExitCode::from(status)
}

fn run(config: &Path, takeover: bool) -> anyhow::Result<bool> {
    // Before there is another thread.
    let given = Inheritance::from_service_manager()?;
    descriptors::make_room();
    pages::keep_small();
    let log = weir::telemetry::trace::init()?;
    let result = weir::app::run(config, Origin { log: log.losses().clone(), given, takeover });
    log.flush();
    result.map(|()| true)
}
