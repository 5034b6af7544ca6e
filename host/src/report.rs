//! What the commands that do not serve print: aligned and coloured for people, JSON for scripts.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the output of commands")]

pub mod authors;

use std::io::IsTerminal;
use std::path::Path;

use anyhow::Context;

use crate::check;
use crate::config;
use crate::config::problem::{Problem, Problems};
use crate::plugin::engine::PluginEngine;
use crate::plugin::inspect::Inspection;

/// Prints the JSON Schema of the configuration.
///
/// # Errors
/// When it cannot be written as JSON; a mistake of ours.
pub fn schema() -> anyhow::Result<bool> {
    println!("{}", serde_json::to_string_pretty(&config::schema())?);
    Ok(true)
}

/// Prints why a command failed. What is wrong with a configuration is told problem by problem.
pub fn error(error: &anyhow::Error) {
    match error.downcast_ref::<Problems>() {
        Some(problems) => list(problems),
        None => eprintln!("{} {error:#}", Paint::stderr().red("error:")),
    }
}

/// Checks a configuration and prints what was found. True when it is good.
///
/// # Errors
/// When the check itself cannot be done.
pub fn check(file: &Path, json: bool) -> anyhow::Result<bool> {
    let findings = check::check(file)?;
    let good = findings.problems.0.is_empty();
    if json {
        println!("{:#}", findings.to_json());
        return Ok(good);
    }
    let paint = Paint::stderr();
    list(&findings.problems);
    for note in &findings.notes {
        eprintln!("{} {note}", paint.yellow("note:"));
    }
    if good {
        let seen = findings.seen;
        let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let (listeners, clusters) = (count(seen.listeners, "listener"), count(seen.clusters, "cluster"));
        let filters = count(seen.filters, "filter");
        println!("{} is good: {listeners}, {clusters}, {filters} tried", file.display());
    } else {
        let count = findings.problems.0.len();
        eprintln!("{} {count} problem{} found", paint.red("bad:"), if count == 1 { "" } else { "s" });
    }
    Ok(good)
}

fn list(problems: &Problems) {
    let paint = Paint::stderr();
    for Problem { file, at, field, message } in &problems.0 {
        let place = format!("{}:{}:{}:", file.display(), at.line, at.column);
        let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
        eprintln!("{} {}{message}", paint.bold(&place), paint.cyan(&field));
    }
}

/// Prints what a plugin is. True when Weir would load it.
///
/// # Errors
/// When the file cannot be read.
pub fn inspect(file: &Path, json: bool) -> anyhow::Result<bool> {
    let shown = file.display();
    let bytes = std::fs::read(file)
        .with_context(|| format!("{shown} cannot be read; give the path of a .wasm file"))?;
    let engine = PluginEngine::new()?;
    let inspection = Inspection::of(engine.engine(), &bytes);
    if json {
        println!("{}", serde_json::to_string_pretty(&inspection)?);
    } else {
        describe(file, &inspection);
    }
    Ok(inspection.loadable)
}

fn describe(file: &Path, inspection: &Inspection) {
    let paint = Paint::stdout();
    let verdict = match &inspection.refused {
        None => paint.green("loadable"),
        Some(reason) => format!("{}: {reason}", paint.red("refused")),
    };
    let line = |title: &str, text: String| println!("{:<16}{text}", title);
    line("plugin", format!("{} ({verdict})", file.display()));
    if let Some(name) = &inspection.name {
        line(
            "name",
            format!("{name} {}", inspection.version.as_deref().unwrap_or_default()).trim_end().to_owned(),
        );
    }
    line("size", format!("{} bytes", inspection.size));
    line("digest", inspection.digest.to_string());
    line("Proxy-Wasm", inspection.abi.clone().unwrap_or_else(|| "no marker".to_owned()));
    line("SDK", inspection.sdk.clone().unwrap_or_else(|| "not known".to_owned()));
    if let Some(memory) = inspection.memory {
        let most =
            memory.maximum.map_or_else(|| "no limit of its own".to_owned(), |most| format!("at most {most}"));
        line("memory", format!("{} bytes at the start, {most}", memory.initial));
    }
    let config = inspection.config_fields();
    let lists = [
        ("built by", &inspection.producers),
        ("callbacks", &inspection.callbacks),
        ("host functions", &inspection.host_functions),
        ("WASI functions", &inspection.wasi_functions),
        ("unknown imports", &inspection.unknown_imports),
        ("asks for", &inspection.asks_for),
        ("configuration", &config),
    ];
    for (title, names) in lists {
        for (at, name) in names.iter().enumerate() {
            line(if at == 0 { title } else { "" }, name.clone());
        }
    }
}

/// Colours, where they are wanted: on a terminal, unless `NO_COLOR` is set.
#[derive(Debug, Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn stdout() -> Self {
        Self(std::io::stdout().is_terminal() && wanted())
    }

    fn stderr() -> Self {
        Self(std::io::stderr().is_terminal() && wanted())
    }

    fn paint(self, code: u8, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.paint(1, text)
    }

    fn red(self, text: &str) -> String {
        self.paint(31, text)
    }

    fn green(self, text: &str) -> String {
        self.paint(32, text)
    }

    fn yellow(self, text: &str) -> String {
        self.paint(33, text)
    }

    fn cyan(self, text: &str) -> String {
        self.paint(36, text)
    }
}

fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
