//! What the commands for those who write plugins print.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the output of commands")]

use std::path::{Path, PathBuf};

use crate::author::bench::{self, Measured};
use crate::author::build;
use crate::author::project::Project;
use crate::author::scaffold::{Kind, scaffold};
use crate::author::test::{self, Tested, Wanted};
use crate::report::Paint;
use crate::testbed::{CaseFile, Cost, Costs, Manner, Outcome};

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
    let names = match built.names {
        0 => String::new(),
        names => format!(", {names} of them names of functions for backtraces"),
    };
    println!("{shown}: {} bytes{names}{note}", built.size);
    Ok(true)
}

/// Runs cases, and prints what came of them. True when all are as expected.
///
/// # Errors
/// When they cannot be run.
pub fn test(wanted: &Wanted, json: bool) -> anyhow::Result<bool> {
    let tested = test::test(wanted)?;
    if json {
        let all: serde_json::Value = tested.iter().map(Tested::to_json).collect();
        println!("{all:#}");
        let mut outcomes = tested.iter().flat_map(|file| &file.outcomes).peekable();
        return Ok(outcomes.peek().is_some() && outcomes.all(Outcome::is_good));
    }
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

/// Measures what cases cost, and prints it.
///
/// # Errors
/// When they cannot be run.
pub fn bench(
    wanted: &Wanted,
    against: Option<&PathBuf>,
    manner: Manner,
    runs: u64,
    json: bool,
) -> anyhow::Result<bool> {
    if cfg!(debug_assertions) {
        let paint = Paint::stderr();
        eprintln!(
            "{} this weir is a debug build: its host functions are many times slower",
            paint.yellow("note:")
        );
    }
    let measured = bench::bench(wanted, against, manner, runs)?;
    if json {
        let all: serde_json::Value = measured.iter().map(Measured::to_json).collect();
        println!("{all:#}");
        return Ok(true);
    }
    for case in &measured {
        costs(case);
    }
    Ok(true)
}

/// A table of what a case costs: of what another plugin takes, the change behind it.
fn costs(case: &Measured) {
    let paint = Paint::stdout();
    println!("{}", paint.bold(&case.case));
    let beside =
        if case.against.is_some() { format!("{:>10}{:>9}", "against", "change") } else { String::new() };
    println!(
        "  {:<44}{:>7}{:>10}{:>10}{:>12}{:>9}{beside}",
        "callback", "calls", "ns", "p99", "host calls", "bytes"
    );
    let against = |name: &str| case.against.as_ref().and_then(|against| against.get(name));
    let line = |name: &str, cost: &Cost, other: Option<f64>| {
        let (calls, ns) = (shown(cost.calls), cost.median);
        let p99 = if cost.p99 == 0 { String::new() } else { cost.p99.to_string() };
        let (host_calls, bytes) = (shown(cost.host_calls), shown(cost.bytes));
        let change =
            |other: f64| format!("{other:>10.0}{:>+7.0} %", (other / ns.max(1) as f64 - 1.0) * 100.0);
        let beside = other.map(change).unwrap_or_default();
        println!("  {name:<44}{calls:>7}{ns:>10}{p99:>10}{host_calls:>12}{bytes:>9}{beside}");
    };
    for (name, cost) in &case.costs {
        line(name, cost, against(name).map(|cost| cost.median as f64));
    }
    let sum =
        |costs: &Costs, of: fn(&Cost) -> f64| costs.values().map(|cost| cost.calls * of(cost)).sum::<f64>();
    let of_all = |costs: &Costs| sum(costs, |cost| cost.median as f64);
    let all = Cost {
        calls: sum(&case.costs, |_| 1.0),
        median: of_all(&case.costs) as u64,
        p99: 0,
        host_calls: sum(&case.costs, |cost| cost.host_calls),
        bytes: sum(&case.costs, |cost| cost.bytes),
    };
    line("all", &all, case.against.as_ref().map(of_all));
}

/// A mean, without a fraction where it has none.
fn shown(mean: f64) -> String {
    if (mean - mean.round()).abs() < 0.005 { format!("{mean:.0}") } else { format!("{mean:.2}") }
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
