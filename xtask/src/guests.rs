//! Building guests: the standard filters, and those of the test suite.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::cargo::{cargo, root, run, target};

/// The target that guests are built for.
const WASM: &str = "wasm32-wasip1";

/// Installs the wasm target when it is missing.
///
/// # Errors
/// When it cannot be installed; the message says what to do.
pub fn install_target() -> anyhow::Result<()> {
    let libraries = Command::new("rustc").args(["--print", "target-libdir", "--target", WASM]).output();
    if libraries.is_ok_and(|out| {
        out.status.success() && Path::new(String::from_utf8_lossy(&out.stdout).trim()).is_dir()
    }) {
        return Ok(());
    }
    let added = Command::new("rustup").args(["target", "add", WASM]).status();
    match added {
        Ok(status) if status.success() => Ok(()),
        Ok(_) | Err(_) => bail!(
            "guests are built for {WASM}, which this toolchain does not have, and `rustup target add {WASM}` failed; \
             install the target by hand"
        ),
    }
}

/// The standard filters: the folders of `filters/` that make a plugin. One that does not is what others are made of.
///
/// # Errors
/// When the folder cannot be read.
pub fn filters() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join("filters"))? {
        let path = entry?.path();
        let manifest = fs::read_to_string(path.join("Cargo.toml")).unwrap_or_default();
        if manifest.contains("\"cdylib\"") {
            names.extend(path.file_name().and_then(|name| name.to_str()).map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}

/// Builds the standard filters, and puts each as `NAME.wasm` into the folder that is returned.
///
/// # Errors
/// When one does not build.
pub fn build_filters() -> anyhow::Result<PathBuf> {
    let names = filters()?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    build(&names, &[])?;
    let folder = target().join("plugins");
    fs::create_dir_all(&folder)?;
    for name in names {
        finish(&built(name), &folder.join(format!("{name}.wasm")))?;
    }
    Ok(folder)
}

/// Builds the filter that is measured (`benches/filter`, and the same on the official crate), and puts both into the folder
/// of the standard filters.
///
/// # Errors
/// When it does not build.
pub fn build_bench_filter(folder: &Path) -> anyhow::Result<()> {
    let names = ["bench-filter", "bench-filter-official"];
    build(&names, &[])?;
    names.iter().try_for_each(|name| finish(&built(name), &folder.join(format!("{name}.wasm"))))
}

/// Builds the filter of `docs/examples/greeting` with a greeting of its own, and puts it into a file.
///
/// # Errors
/// When it does not build.
pub fn build_greeting(greeting: &str, file: &Path) -> anyhow::Result<()> {
    build(&["greeting"], &[("GREETING", greeting)])?;
    finish(&built("greeting"), file)
}

/// Builds filters, with variables that they see while they are built.
fn build(names: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<()> {
    install_target()?;
    let mut args = vec!["build", "--quiet", "--profile", "guest", "--target", WASM, "--lib"];
    for name in names {
        args.extend(["--package", name]);
    }
    run(cargo(&args).envs(variables.iter().copied()))
}

/// Where cargo leaves a filter.
fn built(name: &str) -> PathBuf {
    target().join(WASM).join("guest").join(format!("{}.wasm", name.replace('-', "_")))
}

/// Builds the guests of the test suite, and returns the folder that holds `NAME.wasm` for each.
///
/// # Errors
/// When one does not build.
pub fn build_test_guests() -> anyhow::Result<PathBuf> {
    install_target()?;
    let package = ["--package", "weir-test-guests", "--examples"];
    let mut args = vec!["build", "--quiet", "--profile", "guest", "--target", WASM];
    args.extend(package);
    run(&mut cargo(&args))?;
    Ok(target().join(WASM).join("guest").join("examples"))
}

/// Puts a filter to where it is wanted, with the names that `weir plugin build` leaves in one; by rename, so that nobody
/// sees half a file.
fn finish(from: &Path, to: &Path) -> anyhow::Result<()> {
    let beside = to.with_extension("wasm.new");
    let module = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    let module = weir_finish::finish(&module).with_context(|| from.display().to_string())?;
    fs::write(&beside, module).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, to)?;
    Ok(())
}
