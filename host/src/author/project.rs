//! A plugin's folder: a crate, or anything else that says in `weir-plugin.yaml` how it is built.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value as Json;

use crate::config::problem::{Mark, Problem, Problems};
use crate::config::section::{Context, Read, section};
use crate::config::value::Spanned;
use crate::config::yaml::Node;

/// The manifest of a plugin that is no crate, or one that is built in a way of its own.
pub const MANIFEST: &str = "weir-plugin.yaml";

section! {
    /// `weir-plugin.yaml`: how a plugin is built that cargo does not build.
    pub struct Manifest {
        /// The plugin's name. The default is the folder's.
        name: Option<String>,
        /// The command, and its arguments. It runs in the folder, and without a shell.
        build: Spanned<Vec<String>>,
        /// The `.wasm` that it leaves, in the folder.
        output: Spanned<PathBuf>,
    }
}

/// A plugin's folder.
#[derive(Debug)]
pub struct Project {
    /// The folder.
    pub folder: PathBuf,
    /// The plugin's name.
    pub name: String,
    /// How it is built.
    pub how: How,
}

/// How a plugin is built.
#[derive(Debug)]
pub enum How {
    /// It is a crate of this name.
    Cargo(String),
    /// Its manifest says.
    Manifest(Manifest),
}

impl Project {
    /// The project of a folder.
    ///
    /// # Errors
    /// When it is none, or its manifest is not good.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let folder =
            folder.canonicalize().with_context(|| format!("there is no folder {}", folder.display()))?;
        if folder.join(MANIFEST).is_file() {
            let manifest = read(&folder.join(MANIFEST))?;
            let own = folder.file_name().map(|name| name.to_string_lossy().into_owned());
            let name = manifest
                .name
                .clone()
                .or(own)
                .context("the folder has no name; give the plugin one: `name`")?;
            return Ok(Self { folder, name, how: How::Manifest(manifest) });
        }
        if folder.join("Cargo.toml").is_file() {
            let name = package(&folder)?;
            return Ok(Self { folder, name: name.clone(), how: How::Cargo(name) });
        }
        bail!(
            "{} is no plugin: it has neither a Cargo.toml nor a {MANIFEST}; `weir plugin new NAME` makes one",
            folder.display()
        )
    }

    /// Where the built plugin is put.
    pub fn wasm(&self) -> PathBuf {
        self.folder.join(format!("{}.wasm", self.name))
    }
}

fn read(file: &Path) -> anyhow::Result<Manifest> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let wrong = |at: Mark, message: String| {
        Problems(vec![Problem { file: file.to_owned(), at, field: String::new(), message }])
    };
    let node = Node::parse(&text).map_err(|(at, message)| wrong(at, message))?;
    let mut cx = Context::new(file);
    let manifest = Manifest::read(&node, &mut cx);
    if let Some(manifest) = manifest.as_ref().filter(|manifest| manifest.build.value.is_empty()) {
        let at = if manifest.build.place.at == Mark::default() { node.at } else { manifest.build.place.at };
        cx.problem_in("build", at, "a command is expected here, as in `[make, plugin]`");
    }
    let problems = cx.finish();
    match manifest {
        Some(manifest) => Ok(problems.or(manifest)?),
        None => Err(problems.into()),
    }
}

/// The name of the package of a folder, as cargo has it.
fn package(folder: &Path) -> anyhow::Result<String> {
    let file = folder.join("Cargo.toml");
    let out = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
        .arg(&file)
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be run; install Rust (https://rustup.rs)")?;
    if !out.status.success() {
        bail!("cargo does not understand {}", file.display());
    }
    let metadata: Json = serde_json::from_slice(&out.stdout)?;
    let packages = metadata.get("packages").and_then(Json::as_array).cloned().unwrap_or_default();
    let is_own = |package: &&Json| {
        package.get("manifest_path").and_then(Json::as_str).is_some_and(|path| Path::new(path) == file)
    };
    let own = packages.iter().find(is_own).and_then(|package| package.get("name")?.as_str());
    own.map(str::to_owned).with_context(|| format!("{} has no package", file.display()))
}

/// Cargo, without what another cargo may have set for this process.
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        let of_package =
            ["CARGO_PKG_", "CARGO_BIN_", "CARGO_CFG_"].iter().any(|prefix| name_text.starts_with(prefix));
        if of_package || name_text == "CARGO_MANIFEST_DIR" || name_text == "CARGO_MANIFEST_PATH" {
            command.env_remove(&name);
        }
    }
    command
}
