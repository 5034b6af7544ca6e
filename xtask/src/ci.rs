//! What a change must pass.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Context;

use crate::cargo::{cargo, root, run, target};
use crate::{demo, exchange, guests};

/// Format, lints, dependencies, tests, the demo's commands, instructions of an exchange: in the order in which they fail fastest.
///
/// # Errors
/// The first step that fails.
pub fn ci() -> anyhow::Result<()> {
    guests::install_target()?;
    step("format", || run(&mut cargo(&["fmt", "--all", "--check"])))?;
    step("lints", || {
        let lints = ["clippy", "--workspace", "--all-targets", "--locked", "--quiet"];
        run(cargo(&lints).args(["--", "--deny", "warnings"]))
    })?;
    step("dependencies", audit)?;
    step("tests", || test(&[]))?;
    step("demo", || demo::run(true))?;
    step("instructions", || exchange::check(false))
}

/// The whole suite. `args` go to `cargo test`.
///
/// # Errors
/// When a test fails, or the wasm target cannot be installed.
pub fn test(args: &[String]) -> anyhow::Result<()> {
    guests::install_target()?;
    run(cargo(&["test", "--workspace", "--locked"]).args(args))
}

/// The version of cargo-deny that is installed where there is none: one that builds on this toolchain.
const DENY: &str = "0.20.2";

/// Licences, sources and bans. Advisories need a database from outside the package registry, so they are for
/// those who run `cargo deny check` by hand.
fn audit() -> anyhow::Result<()> {
    let check = ["check", "licenses", "bans", "sources"];
    let works = |program: &Path| {
        Command::new(program).args(["deny", "--version"]).output().is_ok_and(|out| out.status.success())
    };
    let tools = target().join("tools");
    let own = tools.join("bin/cargo-deny");
    if works(Path::new("cargo-deny")) {
        return run(cargo(&["deny"]).args(check));
    }
    if !works(&own) {
        crate::say("installing cargo-deny below the target folder");
        // It runs for a second: to optimise it takes minutes.
        let install =
            ["install", "--quiet", "--locked", "--debug", "--version", DENY, "cargo-deny", "--root"];
        run(cargo(&install).arg(&tools).env("CARGO_PROFILE_DEV_DEBUG", "false"))
            .context("cargo-deny cannot be installed; is crates.io reachable?")?;
    }
    run(Command::new(own).current_dir(root()).arg("deny").args(check))
}

fn step(name: &str, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    crate::say(&format!("--- {name}"));
    let start = Instant::now();
    work()?;
    crate::say(&format!("--- {name}: good after {} s", start.elapsed().as_secs()));
    Ok(())
}
