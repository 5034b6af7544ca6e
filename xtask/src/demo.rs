//! `cargo xtask demo`: a gateway, two sidecars and the services behind them on this machine, and commands that show
//! what they do.
//!
//! check that the tools and the ports are there -> build -> folder -> services -> processes -> commands -> stop

mod commands;
mod fetch;
mod folder;
mod ports;
mod processes;
mod services;

use std::fmt::Write;
use std::path::Path;

use anyhow::bail;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cargo::{build_weir, root};
use crate::demo::commands::Commands;
use crate::demo::folder::Folder;
use crate::demo::processes::Processes;
use crate::demo::services::Services;
use crate::{guests, say};

/// Runs the demo until it is interrupted. With `check`, until its commands have run; that is done with the build of
/// the tests, which is there already where it is done.
///
/// # Errors
/// When something is missing, does not start, ends by itself, or shows something else than it should.
pub fn run(check: bool) -> anyhow::Result<()> {
    commands::find_tools()?;
    ports::check_free()?;
    say("demo: building weir and the plugins");
    let weir = build_weir(!check)?;
    let plugins = guests::build_filters()?;
    let folder = Folder::make(&plugins)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(session(&weir, &folder, check))
}

/// From the first service to the last process that has ended.
async fn session(weir: &Path, folder: &Folder, check: bool) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let mut processes = Processes::new(folder.logs());
    let result = tokio::select! {
        result = serve(weir, folder, &mut processes, check) => result,
        () = signals.received() => if check { Err(anyhow::anyhow!("interrupted")) } else { Ok(()) },
    };
    say("demo: stopping");
    processes.stop(&mut signals).await;
    result
}

/// Starts everything and shows it. Ends by itself only with the commands of a check, or with a failure.
async fn serve(weir: &Path, folder: &Folder, processes: &mut Processes, check: bool) -> anyhow::Result<()> {
    let _services = Services::start(folder.authority()).await?;
    for process in folder::PROCESSES {
        processes.start(weir, process.name, &folder.config(process))?;
    }
    for process in folder::PROCESSES {
        processes.wait_until_ready(process).await?;
    }
    let commands = Commands::new(folder.path());
    if check {
        return tokio::select! {
            checked = commands.check() => checked,
            ended = processes.failure() => Err(ended),
        };
    }
    show(&overview(weir, folder)?);
    show(&commands.text());
    say("Ctrl-C stops everything.");
    Err(processes.failure().await)
}

/// What runs where.
fn overview(weir: &Path, folder: &Folder) -> anyhow::Result<String> {
    let weir = weir.strip_prefix(root()).unwrap_or(weir).display();
    let mut text = "\nThis runs:\n".to_owned();
    for process in folder::PROCESSES {
        let name = process.name;
        writeln!(text, "  {name:<18} {weir} run --config {}", folder.config(process).display())?;
    }
    for service in services::SERVICES {
        writeln!(text, "  {:<18} a service at {}, {}", service.name, service.address, service.spoken_to())?;
    }
    writeln!(text, "Certificates, plugins and logs are in {}.", folder.path().display())?;
    Ok(text)
}

/// Prints what the user asked for.
#[expect(clippy::print_stdout, reason = "the command's output")]
fn show(text: &str) {
    println!("{text}");
}

/// What ends the demo.
#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// Fails with all problems at once, when there are any.
fn none_of(problems: &[String]) -> anyhow::Result<()> {
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}
