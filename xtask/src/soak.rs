//! Long runs of the release build.

use crate::cargo::{build_weir, cargo, run};
use crate::{guests, parity};

/// Runs one of the soaks by name. `args` go to the runner.
///
/// # Errors
/// When something cannot be built or installed, or the run fails.
pub fn soak(args: &[String]) -> anyhow::Result<()> {
    guests::install_target()?;
    let weir = build_weir(true)?;
    let runner = ["run", "--quiet", "--package", "weir-tests", "--bin", "soak", "--"];
    let mut command = cargo(&runner);
    command.args(args).env("WEIR", weir);
    if args.iter().any(|arg| arg.ends_with("-envoy")) {
        command.env("ENVOY", parity::envoy()?);
    }
    run(&mut command)
}
