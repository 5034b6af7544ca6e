//! What a change must pass.

use std::process::Command;
use std::time::Instant;

use crate::cargo::{cargo, run};
use crate::{demo, guests};

/// Format, lints, dependencies, tests, the demo's commands: in the order in which they fail fastest.
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
    step("demo", || demo::run(true))
}

/// The whole suite. `args` go to `cargo test`.
///
/// # Errors
/// When a test fails, or the wasm target cannot be installed.
pub fn test(args: &[String]) -> anyhow::Result<()> {
    guests::install_target()?;
    run(cargo(&["test", "--workspace", "--locked"]).args(args))
}

/// Licences, sources and bans. Advisories need a database from outside the package registry, so they are for
/// those who run `cargo deny check` by hand.
fn audit() -> anyhow::Result<()> {
    let installed =
        Command::new("cargo").args(["deny", "--version"]).output().is_ok_and(|out| out.status.success());
    if !installed {
        crate::say(
            "cargo-deny is not installed, so dependencies are not audited: cargo install --locked cargo-deny",
        );
        return Ok(());
    }
    run(&mut cargo(&["deny", "check", "licenses", "bans", "sources"]))
}

fn step(name: &str, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    crate::say(&format!("--- {name}"));
    let start = Instant::now();
    work()?;
    crate::say(&format!("--- {name}: good after {} s", start.elapsed().as_secs()));
    Ok(())
}
