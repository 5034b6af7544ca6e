//! Configurations with places to fill: `{{name}}`.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

/// Names and what they stand for.
pub type Values = Vec<(String, String)>;

/// Fills a file of `benches/peers` and writes it.
///
/// # Errors
/// When it names something that has no value, or cannot be read or written.
pub fn fill(template: &str, values: &Values, to: &Path) -> anyhow::Result<()> {
    let from = xtask::cargo::root().join("benches/peers").join(template);
    let mut text = fs::read_to_string(&from).with_context(|| format!("cannot read {}", from.display()))?;
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    if let Some((_, rest)) = text.split_once("{{") {
        let name = rest.split_once("}}").map_or(rest, |(name, _)| name);
        bail!("{template} names `{name}`, which has no value");
    }
    fs::write(to, text).with_context(|| format!("cannot write {}", to.display()))
}

/// The value of a name.
///
/// # Errors
/// When it has none.
pub fn value<'a>(values: &'a Values, name: &str) -> anyhow::Result<&'a str> {
    let found = values.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str()).with_context(|| format!("`{name}` has no value"))
}
