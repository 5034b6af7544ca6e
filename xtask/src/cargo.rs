//! Running cargo in this repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// The root of the repository.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The target folder.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A cargo command at the root, by the same cargo that runs this.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(args);
    // Set for this process by the cargo that started it, and wrong for another package.
    for variable in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "RUSTFLAGS_FOR_TARGET"] {
        command.env_remove(variable);
    }
    command
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started, or fails.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("{shown} failed: {status}");
    }
    Ok(())
}

/// Builds the `weir` command in the profile of the tests, and returns its path.
///
/// # Errors
/// When it does not build.
pub fn build_weir(release: bool) -> anyhow::Result<PathBuf> {
    // Of the whole workspace, so that dependencies have the features that `cargo test --workspace` gives them:
    // with others they would be built a second time.
    let mut args = vec!["build", "--quiet", "--workspace", "--bin", "weir"];
    if release {
        args = vec!["build", "--quiet", "--package", "weir", "--bin", "weir", "--release"];
    }
    run(&mut cargo(&args))?;
    Ok(target().join(if release { "release" } else { "debug" }).join("weir"))
}
