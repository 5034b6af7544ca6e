//! What an exchange took when somebody looked last: `benches/baseline/exchange.txt`.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};

use crate::cargo::root;

/// What an exchange may take more than the baseline, in percent.
const MOST: u64 = 5;

const HEAD: &str = "\
# The instructions that Weir's worker spends on one HTTP/1.1 exchange, as `cargo xtask count` counts them.
# `cargo xtask ci` fails when one needs over 5 % more. Who means that says why in the commit message, and has
# `cargo xtask count --update` change this file in the same commit.
";

/// The figures.
#[derive(Debug, PartialEq, Eq)]
pub struct Baseline {
    /// The compiler and the architecture that they hold for.
    pub made_with: String,
    /// The instructions of an exchange, by case.
    pub cases: Vec<(String, u64)>,
}

impl Baseline {
    /// Reads them.
    ///
    /// # Errors
    /// When the file is not there, or something else.
    pub fn read() -> anyhow::Result<Self> {
        let file = file();
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not understood", file.display()))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let made_with = lines.next()?.to_owned();
        let case = |line: &str| {
            let (name, instructions) = line.split_once(": ")?;
            Some((name.to_owned(), instructions.parse().ok()?))
        };
        Some(Self { made_with, cases: lines.map(case).collect::<Option<_>>()? })
    }

    /// Writes them.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self) -> anyhow::Result<()> {
        let mut text = format!("{HEAD}{}\n", self.made_with);
        for (name, instructions) in &self.cases {
            writeln!(text, "{name}: {instructions}")?;
        }
        Ok(std::fs::write(file(), text)?)
    }

    /// Compares what was counted with these.
    ///
    /// # Errors
    /// When a case takes more than it may.
    pub fn compare(&self, counted: &Self) -> anyhow::Result<()> {
        let mut grown = Vec::new();
        for (name, now) in &counted.cases {
            let Some((_, before)) = self.cases.iter().find(|(known, _)| known == name) else {
                bail!("the baseline has no `{name}`; `cargo xtask count --update` adds it");
            };
            let more = (*now as f64 / *before as f64 - 1.0) * 100.0;
            if now * 100 > before * (100 + MOST) {
                grown.push(format!("{name}: {now} instructions, {more:.1} % more than {before}"));
            } else if now * 100 < before * (100 - MOST) {
                crate::say(&format!(
                    "{name}: {:.1} % less than the baseline; `cargo xtask count --update` keeps what was won",
                    -more
                ));
            }
        }
        if !grown.is_empty() {
            bail!(
                "an exchange takes over {MOST} % more than it did; if that is meant, say why, and have `cargo xtask count \
                 --update` change the baseline in the same commit:\n{}",
                grown.join("\n")
            );
        }
        Ok(())
    }
}

fn file() -> PathBuf {
    root().join("benches/baseline/exchange.txt")
}

/// The compiler and the architecture here.
///
/// # Errors
/// When the compiler does not tell its version.
pub fn made_with() -> anyhow::Result<String> {
    let out = Command::new("rustc").arg("--version").current_dir(root()).output()?;
    Ok(format!("{}, {}", String::from_utf8(out.stdout)?.trim(), std::env::consts::ARCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(no_filter: u64) -> Baseline {
        Baseline { made_with: "rustc".to_owned(), cases: vec![("no filter".to_owned(), no_filter)] }
    }

    #[test]
    fn what_needs_over_five_percent_more_fails_and_what_needs_less_does_not() {
        let known = of(40_000);
        for good in [20_000, 40_000, 42_000] {
            known.compare(&of(good)).expect("it may");
        }
        let error = known.compare(&of(42_100)).expect_err("it needs 5.2 % more").to_string();
        assert!(error.contains("no filter: 42100 instructions, 5.2 % more than 40000"), "{error}");
        let other = Baseline { cases: vec![("new".to_owned(), 1)], ..of(1) };
        assert!(known.compare(&other).is_err(), "what is not in the baseline is no success");
    }

    #[test]
    fn the_baseline_that_is_committed_is_understood_and_written_as_it_is() {
        let text = std::fs::read_to_string(file()).expect("it is there");
        let read = Baseline::parse(&text).expect("it is understood");
        let cases: Vec<String> =
            read.cases.iter().map(|(name, count)| format!("{name}: {count}\n")).collect();
        assert_eq!(text, format!("{HEAD}{}\n{}", read.made_with, cases.concat()));
    }
}
