//! `weir plugin test`: finds cases and the plugin that they are for, and runs them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use serde_json::{Value as Json, json};

use crate::author::build::build;
use crate::author::project::Project;
use crate::config::problem::Problems;
use crate::plugin::library::Loaded;
use crate::testbed::{CaseFile, Cast, Difference, Outcome, Workbench, run_file};

/// What is to be tested.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Files of cases, or folders: of a folder all files in its `cases/`.
    pub paths: Vec<PathBuf>,
    /// The plugin. Without it, it is the one that the file names, or else the folder's, which is built.
    pub plugin: Option<PathBuf>,
    /// Only cases with this in their names.
    pub only: Option<String>,
    /// Whether expectations that do not fit are rewritten.
    pub update: bool,
}

/// What came of a file of cases.
#[derive(Debug)]
pub struct Tested {
    /// The file.
    pub file: PathBuf,
    /// What came of its cases.
    pub outcomes: Vec<Outcome>,
    /// Whether expectations in it were rewritten.
    pub updated: bool,
}

impl Tested {
    /// For scripts.
    pub fn to_json(&self) -> Json {
        let difference = |found: &Difference| {
            json!({
                "line": found.place.at.line,
                "column": found.place.at.column,
                "field": found.place.field.to_string(),
                "message": found.what,
                "wanted": found.wanted,
                "got": found.got,
            })
        };
        let case = |outcome: &Outcome| {
            json!({
                "name": outcome.name,
                "line": outcome.place.at.line,
                "good": outcome.is_good(),
                "differences": outcome.differences.iter().map(difference).collect::<Vec<_>>(),
            })
        };
        json!({
            "file": self.file.display().to_string(),
            "updated": self.updated,
            "cases": self.outcomes.iter().map(case).collect::<Vec<_>>(),
        })
    }
}

/// The folder of a plugin's cases.
const CASES: &str = "cases";

/// Runs what is wanted. A file that cannot be read stops everything, after all of them have been looked at.
///
/// # Errors
/// What is wrong with the files, or why there is no plugin to run them on.
pub fn test(wanted: &Wanted) -> anyhow::Result<Vec<Tested>> {
    let read = read_cases(&wanted.paths)?;
    let mut plugins = Plugins::new()?;
    let only = |name: &str| wanted.only.as_ref().is_none_or(|part| name.contains(part));
    let run = |(file, cases, text): (PathBuf, CaseFile, String)| {
        let plugin = plugins.load(&plugin_of(&file, &cases, wanted)?)?;
        let cast = plugins.cast(plugin, &cases)?;
        let mut outcomes = run_file(&plugins.workbench, &cast, &cases, only)?;
        let mut updated = false;
        if wanted.update
            && let Some(text) = Outcome::update(&outcomes, &cases, &text, &file)?
        {
            std::fs::write(&file, &text).with_context(|| format!("{} cannot be written", file.display()))?;
            // What cannot be mended by an expectation is still wrong.
            let cases = CaseFile::parse(&text, &file)?;
            outcomes = run_file(&plugins.workbench, &cast, &cases, only)?;
            updated = true;
        }
        Ok(Tested { file, outcomes, updated })
    };
    read.into_iter().map(run).collect()
}

/// Reads all files of cases.
///
/// # Errors
/// All that is wrong with them.
pub fn read_cases(paths: &[PathBuf]) -> anyhow::Result<Vec<(PathBuf, CaseFile, String)>> {
    let mut files = Vec::new();
    for path in paths {
        files.extend(files_of(path)?);
    }
    let mut problems = Problems::default();
    let mut read = Vec::new();
    for file in files {
        match CaseFile::load(&file) {
            Ok((cases, text)) => read.push((file, cases, text)),
            Err(found) => problems.0.extend(found.0),
        }
    }
    Ok(problems.or(read)?)
}

/// The files of cases that a path stands for.
fn files_of(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let folder = if path.join(CASES).is_dir() { path.join(CASES) } else { path.to_owned() };
    let entries = std::fs::read_dir(&folder)
        .with_context(|| format!("{} is neither a file of cases nor a folder", path.display()))?;
    let is_cases =
        |path: &PathBuf| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(is_cases).collect();
    files.sort();
    if files.is_empty() || folder == path {
        bail!("{} has no cases: write the first one into {CASES}/NAME.yaml in it", path.display());
    }
    Ok(files)
}

/// The plugin that a file of cases is for. That of a folder is built.
///
/// # Errors
/// When there is none, or it does not build.
pub fn plugin_of(file: &Path, cases: &CaseFile, wanted: &Wanted) -> anyhow::Result<PathBuf> {
    if let Some(plugin) = wanted.plugin.as_ref().or(cases.plugin.as_ref()) {
        return Ok(plugin.clone());
    }
    let beside = file.canonicalize()?;
    let folder = beside.parent().filter(|folder| folder.ends_with(CASES)).and_then(Path::parent);
    let folder = folder.with_context(|| {
        format!(
            "{} does not say which plugin it is for; add `plugin: FILE.wasm`, or run with `--plugin`",
            file.display()
        )
    })?;
    Ok(build(&Project::open(folder)?)?.wasm)
}

/// Plugins by their files, each loaded once.
pub struct Plugins {
    workbench: Arc<Workbench>,
    loaded: BTreeMap<PathBuf, Loaded>,
}

impl Plugins {
    /// None yet.
    ///
    /// # Errors
    /// When there is no engine to run them.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { workbench: Workbench::new()?, loaded: BTreeMap::new() })
    }

    /// What runs them.
    pub fn workbench(&self) -> &Arc<Workbench> {
        &self.workbench
    }

    /// A plugin, and those that stand beside it in a file's cases.
    ///
    /// # Errors
    /// When one of them cannot be read, or Weir would refuse it.
    pub fn cast(&mut self, tested: Loaded, cases: &CaseFile) -> anyhow::Result<Cast> {
        let load = |file: &Path| Ok((file.to_owned(), self.load(file)?));
        let others = cases.neighbours().map(load).collect::<anyhow::Result<_>>()?;
        Ok(Cast { tested, others })
    }

    /// The plugin of a file.
    ///
    /// # Errors
    /// When it cannot be read, or Weir would refuse it.
    pub fn load(&mut self, file: &Path) -> anyhow::Result<Loaded> {
        if let Some(known) = self.loaded.get(file) {
            return Ok(known.clone());
        }
        let shown = file.display();
        let bytes =
            std::fs::read(file).with_context(|| format!("{shown} cannot be read; give a .wasm file"))?;
        let loaded = self.workbench.load(&bytes).with_context(|| shown.to_string())?;
        self.loaded.insert(file.to_owned(), loaded.clone());
        Ok(loaded)
    }
}
