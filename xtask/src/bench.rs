//! Weir beside its peers.

use crate::cargo::{build_weir, cargo, run, target};
use crate::guests;

/// Builds the release `weir`, the plugins and the load, and runs workloads. `args` go to the runner.
///
/// # Errors
/// When something does not build, or a workload fails.
pub fn side_by_side(args: &[String]) -> anyhow::Result<()> {
    let (weir, plugins) = (build_weir(true)?, guests::build_filters()?);
    guests::build_bench_filter(&plugins)?;
    run(&mut cargo(&["build", "--quiet", "--release", "--package", "weir-benches", "--bins"]))?;
    let mut command = std::process::Command::new(target().join("release/side-by-side"));
    command.current_dir(crate::cargo::root()).args(args);
    run(command.arg("--weir").arg(weir).arg("--plugins").arg(plugins))
}
