//! What the commands for those who write plugins print.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the output of commands")]

use std::path::Path;

use crate::author::build;
use crate::author::project::Project;
use crate::author::scaffold::{Kind, scaffold};
use crate::author::test::{self, Wanted};
use crate::report::Paint;
use crate::testbed::CaseFile;

/// Writes a new plugin, and prints what can be done with it.
///
/// # Errors
/// When it cannot be written.
pub fn new(path: &Path, kind: Kind) -> anyhow::Result<bool> {
    let folder = scaffold(path, kind)?;
    let shown = folder.display();
    println!("{shown} is written. Next:");
    for (command, does) in [
        (format!("weir plugin test {shown}"), "builds it and runs its cases"),
        (format!("weir plugin build {shown}"), "builds it"),
        (format!("weir run --config {shown}/gateway.yaml"), "runs a gateway with it"),
    ] {
        println!("  {command:<44} {does}");
    }
    Ok(true)
}

/// Builds the plugin of a folder, and prints where it is.
///
/// # Errors
/// When it does not build.
pub fn build(folder: &Path) -> anyhow::Result<bool> {
    let built = build::build(&Project::open(folder)?)?;
    let shown = relative(&built.wasm);
    let note = match built.optimized {
        Some(false) => " (wasm-opt of Binaryen, which is not installed, would make it smaller)",
        Some(true) | None => "",
    };
    println!("{shown}: {} bytes{note}", built.size);
    Ok(true)
}

/// Runs cases, and prints what came of them. True when all are as expected.
///
/// # Errors
/// When they cannot be run.
pub fn test(wanted: &Wanted) -> anyhow::Result<bool> {
    let tested = test::test(wanted)?;
    let paint = Paint::stdout();
    let (mut good, mut bad) = (0, 0);
    for file in &tested {
        let shown = relative(&file.file);
        for outcome in &file.outcomes {
            if outcome.is_good() {
                good += 1;
                println!("{} {}", paint.green("ok  "), outcome.name);
                continue;
            }
            bad += 1;
            println!("{} {}", paint.red("FAIL"), paint.bold(&outcome.name));
            for difference in &outcome.differences {
                let at = difference.place.at;
                let (place, text) = (format!("{shown}:{}:{}:", at.line, at.column), difference.text());
                let mut lines = text.lines();
                println!("     {} {}", paint.bold(&place), lines.next().unwrap_or_default());
                for line in lines {
                    let line = match line.trim_start().chars().next() {
                        Some('-') => paint.red(line),
                        Some('+') => paint.green(line),
                        Some(_) | None => line.to_owned(),
                    };
                    println!("     {line}");
                }
            }
        }
        if file.updated {
            eprintln!(
                "{} {shown} has new expectations; look at them before they are kept",
                paint.yellow("note:")
            );
        }
    }
    let total = good + bad;
    println!("{total} case{}: {good} good, {bad} bad", if total == 1 { "" } else { "s" });
    if total == 0 {
        eprintln!("{} no case was run: nothing has this in its name", paint.yellow("note:"));
    }
    Ok(bad == 0 && total > 0)
}

/// Prints the JSON Schema of files of cases.
///
/// # Errors
/// When it cannot be written as JSON; a mistake of ours.
pub fn case_schema() -> anyhow::Result<bool> {
    println!("{}", serde_json::to_string_pretty(&CaseFile::json_schema())?);
    Ok(true)
}

/// A path as it is seen from here, where it is below.
fn relative(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    below.as_deref().unwrap_or(path).display().to_string()
}
