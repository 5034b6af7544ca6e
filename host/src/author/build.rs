//! `weir plugin build`: from a folder to `NAME.wasm` in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value as Json;

use crate::author::project::{How, Manifest, Project, cargo};

/// The target that plugins in Rust are built for.
const TARGET: &str = "wasm32-wasip1";

/// A plugin that was built.
#[derive(Debug)]
pub struct Built {
    /// Where it is.
    pub wasm: PathBuf,
    /// Its size, in bytes.
    pub size: usize,
    /// How many of those are the names of its functions, which only backtraces need.
    pub names: usize,
    /// Whether `wasm-opt` has been over it. `None` where that is its own build's business.
    pub optimized: Option<bool>,
}

/// What the release profile is told, whatever the crate says: names stay, so that a trap can be read.
const PROFILE: [(&str, &str); 4] = [
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_STRIP", "debuginfo"),
];

/// Builds a plugin, and puts it into its folder. What compilers have to say goes to the standard error.
///
/// # Errors
/// When it does not build.
pub fn build(project: &Project) -> anyhow::Result<Built> {
    let (made, optimized) = match &project.how {
        How::Cargo(package) => {
            install_target()?;
            let made = finish(&build_crate(project, package)?, "finished.wasm")?;
            let smaller = made.with_extension("opt.wasm");
            if optimize(&made, &smaller)? {
                // It writes names of its own, and tells those apart that are the same.
                (finish(&smaller, "wasm")?, Some(true))
            } else {
                (made, Some(false))
            }
        }
        How::Manifest(manifest) => (build_otherwise(project, manifest)?, None),
    };
    let wasm = project.wasm();
    if made != wasm {
        // By rename: a gateway may watch the folder.
        let beside = wasm.with_extension("wasm.new");
        std::fs::copy(&made, &beside).with_context(|| format!("{} cannot be copied", made.display()))?;
        std::fs::rename(&beside, &wasm).with_context(|| format!("{} cannot be written", wasm.display()))?;
    }
    let bytes = std::fs::read(&wasm).context("the plugin is gone again")?;
    Ok(Built { wasm, size: bytes.len(), names: weir_finish::size_of_names(&bytes), optimized })
}

/// Finishes a module, into a file beside it.
fn finish(made: &Path, extension: &str) -> anyhow::Result<PathBuf> {
    let module = std::fs::read(made).with_context(|| format!("{} cannot be read", made.display()))?;
    let finished = weir_finish::finish(&module).with_context(|| made.display().to_string())?;
    let to = made.with_extension(extension);
    std::fs::write(&to, finished).with_context(|| format!("{} cannot be written", to.display()))?;
    Ok(to)
}

/// Installs the target when the toolchain does not have it.
fn install_target() -> anyhow::Result<()> {
    let libraries = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    let libraries = libraries.context("rustc cannot be run; install Rust (https://rustup.rs)")?;
    if libraries.status.success() && Path::new(String::from_utf8_lossy(&libraries.stdout).trim()).is_dir() {
        return Ok(());
    }
    let added = Command::new("rustup").args(["target", "add", TARGET]).status();
    if added.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    bail!(
        "plugins are built for {TARGET}, which this toolchain does not have, and `rustup target add {TARGET}` failed; \
         install the target by hand, or a toolchain that has it"
    )
}

/// Builds a crate; where cargo left its `.wasm`.
fn build_crate(project: &Project, package: &str) -> anyhow::Result<PathBuf> {
    let out = cargo()
        .current_dir(&project.folder)
        .args(["build", "--release", "--lib", "--target", TARGET, "--package", package])
        .arg("--message-format=json-render-diagnostics")
        .envs(PROFILE)
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be run; install Rust (https://rustup.rs)")?;
    if !out.status.success() {
        bail!("`{}` does not build", project.name);
    }
    let messages = String::from_utf8_lossy(&out.stdout);
    let mut artifacts = messages.lines().filter_map(|line| {
        let message: Json = serde_json::from_str(line).ok()?;
        if message.get("reason")?.as_str()? != "compiler-artifact" {
            return None;
        }
        let files = message.get("filenames")?.as_array()?.clone();
        files.iter().filter_map(Json::as_str).find(|file| file.ends_with(".wasm")).map(PathBuf::from)
    });
    artifacts.next_back().with_context(|| {
        format!(
            "`{}` builds, but to no .wasm; add to its Cargo.toml: [lib] crate-type = [\"cdylib\"]",
            project.name
        )
    })
}

/// Has Binaryen's `wasm-opt` go over a plugin, when there is one. Function names are kept.
fn optimize(from: &Path, to: &Path) -> anyhow::Result<bool> {
    let mut command = Command::new("wasm-opt");
    command.args(["-O3", "--strip-dwarf", "-g"]).arg(from).arg("-o").arg(to);
    match command.status() {
        Ok(status) if status.success() => Ok(true),
        Ok(status) => {
            bail!("wasm-opt failed ({status}); a newer Binaryen may know what this compiler writes")
        }
        Err(_) => Ok(false),
    }
}

fn build_otherwise(project: &Project, manifest: &Manifest) -> anyhow::Result<PathBuf> {
    let (program, args) = manifest.build.split_first().context("the build has no command")?;
    let status = Command::new(program)
        .args(args)
        .current_dir(&project.folder)
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("`{program}` cannot be run; `build` in the manifest names it"))?;
    if !status.success() {
        bail!("`{}` failed ({status})", manifest.build.join(" "));
    }
    let made = &manifest.output.value;
    if !made.is_file() {
        bail!("`{}` left no {}, which is the manifest's `output`", manifest.build.join(" "), made.display());
    }
    Ok(made.clone())
}
