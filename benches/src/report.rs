//! What a workload showed: a table in Markdown, and a plot.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::plot;
use crate::spread::Spread;

/// What a workload showed.
#[derive(Debug, Default)]
pub struct Report {
    /// The workload, as the command line names it.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// The heads of the columns.
    pub columns: Vec<String>,
    /// The rows, each with a cell for each column.
    pub rows: Vec<Vec<String>>,
    /// What has to be known to read it.
    pub notes: Vec<String>,
    /// What the plot shows.
    pub bars: Vec<Bar>,
    /// What its bars stand for, with the unit.
    pub bar_title: String,
}

/// A bar of the plot.
#[derive(Debug)]
pub struct Bar {
    /// Whose it is.
    pub name: String,
    /// How long, and from where to where it varies.
    pub value: Spread,
}

impl Report {
    /// An empty one.
    pub fn new(name: &'static str, about: &'static str) -> Self {
        Self { name, about, ..Self::default() }
    }

    /// The table and the notes.
    pub fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}. All figures: min / median / max.\n\n", self.name, self.about);
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        text.push_str(&line(&self.columns));
        text.push_str(&line(&vec!["---".to_owned(); self.columns.len()]));
        self.rows.iter().for_each(|row| text.push_str(&line(row)));
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "- {note}");
        }
        text
    }

    /// Writes `NAME.md` and `NAME.svg`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, folder: &Path, about: &str) -> anyhow::Result<()> {
        write(folder, &format!("{}.md", self.name), &format!("{about}\n{}", self.markdown()))?;
        write(folder, &format!("{}.svg", self.name), &plot::bars(self.name, &self.bar_title, &self.bars))
    }
}

/// Writes `results.md`: all workloads of a run.
///
/// # Errors
/// When it cannot be written.
pub fn write_all(folder: &Path, about: &str, reports: &[Report]) -> anyhow::Result<()> {
    let mut text = about.to_owned();
    for report in reports {
        // Writing into a string cannot fail.
        let _ = write!(text, "\n{}\n![{}]({}.svg)\n", report.markdown(), report.name, report.name);
    }
    write(folder, "results.md", &text)
}

fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let file = folder.join(name);
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}
