//! `weir plugin new`: a crate that builds, with cases, a configuration to try it in, and the SDK.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::author::sdk;

/// What kind of a filter is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Requests and responses.
    Http,
    /// Connections.
    Network,
}

/// Files of every new plugin.
const FILES: [(&str, &str); 4] = [
    ("Cargo.toml", include_str!("scaffold/Cargo.toml.in")),
    (".gitignore", include_str!("scaffold/gitignore.in")),
    ("README.md", include_str!("scaffold/README.md.in")),
    ("tests/cases.rs", include_str!("scaffold/cases.rs.in")),
];

const HTTP: [(&str, &str); 3] = [
    ("src/lib.rs", include_str!("scaffold/http.rs.in")),
    ("cases/greeting.yaml", include_str!("scaffold/http.yaml.in")),
    ("gateway.yaml", include_str!("scaffold/http.gateway.yaml.in")),
];

const NETWORK: [(&str, &str); 3] = [
    ("src/lib.rs", include_str!("scaffold/network.rs.in")),
    ("cases/banner.yaml", include_str!("scaffold/network.yaml.in")),
    ("gateway.yaml", include_str!("scaffold/network.gateway.yaml.in")),
];

/// Writes a new plugin into the folder of its name, which is returned.
///
/// # Errors
/// When the name is none for a crate, or there is something of that name already.
pub fn scaffold(path: &Path, kind: Kind) -> anyhow::Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if !is_name {
        bail!(
            "`{name}` is no name for a crate; begin with a letter, and go on with letters, digits, `-` and `_`"
        );
    }
    if path.exists() {
        bail!("there is a {} already; choose another name, or another folder", path.display());
    }
    let own = match kind {
        Kind::Http => HTTP,
        Kind::Network => NETWORK,
    };
    for (file, text) in FILES.iter().chain(&own) {
        write(&path.join(file), &filled(text, name))?;
    }
    write(&path.join("Cargo.lock"), &sdk::lock())?;
    for (file, text) in sdk::files()? {
        write(&path.join("vendor/weir-sdk").join(file), &text)?;
    }
    Ok(path.to_owned())
}

/// A template with the plugin's name in it: as it is, as a type's, and as a library's.
fn filled(text: &str, name: &str) -> String {
    let part = |part: &str| {
        let (first, rest) = part.split_at_checked(1).unwrap_or((part, ""));
        first.to_ascii_uppercase() + rest
    };
    let ty: String = name.split(['-', '_']).map(part).collect();
    text.replace("{{name}}", name).replace("{{Type}}", &ty)
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}
