//! The SDK, as `weir plugin new` writes it beside a new plugin: the source that this command was built with, in crates
//! that need no repository around them.

use std::collections::BTreeSet;

use anyhow::{Context, bail};

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/sdk.rs"));
}

/// The files of the SDK by their paths, ready to be built.
///
/// # Errors
/// When a manifest is written in a way that is not known here; a mistake of ours, which a test finds.
pub fn files() -> anyhow::Result<Vec<(&'static str, String)>> {
    let file = |(path, text): &(&'static str, &'static str)| {
        let text = match path.strip_suffix("Cargo.toml") {
            Some(folder) => standalone(text, folder).with_context(|| (*path).to_owned())?,
            None => (*text).to_owned(),
        };
        Ok((*path, text))
    };
    embedded::SDK.iter().map(file).collect()
}

/// The `Cargo.lock` of a crate that depends on the SDK and on nothing else: the versions that the SDK was tried with.
pub fn lock() -> String {
    let blocks: Vec<&str> = embedded::LOCK.split("\n[[package]]\n").collect();
    let name =
        |block: &str| quoted(block.lines().find(|line| line.starts_with("name = "))?).map(str::to_owned);
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    let mut ahead = vec!["weir-sdk".to_owned()];
    while let Some(package) = ahead.pop() {
        for block in blocks.iter().filter(|block| name(block).as_ref() == Some(&package)) {
            let needs = block.lines().skip_while(|line| *line != "dependencies = [").skip(1);
            ahead.extend(needs.filter_map(|line| Some(quoted(line)?.split(' ').next()?.to_owned())));
        }
        wanted.insert(package);
        ahead.retain(|package| !wanted.contains(package));
    }
    let head = blocks.first().copied().unwrap_or_default();
    let kept = blocks.iter().skip(1).filter(|block| name(block).is_some_and(|name| wanted.contains(&name)));
    kept.fold(head.to_owned() + "\n", |lock, block| {
        lock.trim_end().to_owned() + "\n\n[[package]]\n" + block.trim_end() + "\n"
    })
}

/// What stands between the first two quotes.
fn quoted(line: &str) -> Option<&str> {
    line.split('"').nth(1)
}

/// A manifest of a member of the workspace, without the workspace: `folder` is the crate's own, below the SDK's. What it
/// needs for its own tests is left out.
fn standalone(manifest: &str, folder: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut section = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line.trim();
        }
        match section {
            "[lints]" | "[dev-dependencies]" => continue,
            _ => {}
        }
        let inherited = match line.split_once(".workspace = true") {
            Some((key, "")) => Some((key, "")),
            Some(_) => bail!("`{line}` is not understood"),
            None => line.split_once(" = { workspace = true"),
        };
        match inherited {
            None => text.push_str(line),
            Some((key, "")) if section == "[package]" => {
                text.push_str(&format!("{key} = {}", value_of(key, "[workspace.package]")?));
            }
            Some((key, rest)) => {
                let value = value_of(key, "[workspace.dependencies]")?;
                text.push_str(&format!("{key} = {}", dependency(value, rest, folder)?));
            }
        }
        text.push('\n');
    }
    Ok(text)
}

/// A dependency as the workspace has it, with what a member adds: `rest` is what stands behind `workspace = true`.
fn dependency(value: &str, rest: &str, folder: &str) -> anyhow::Result<String> {
    let inner = match value.strip_prefix('{').and_then(|value| value.strip_suffix('}')) {
        Some(inner) => inner.trim().to_owned(),
        None => format!("version = {value}"),
    };
    let up = "../".repeat(folder.matches('/').count());
    let inner = match inner.strip_prefix("path = \"guest-sdk") {
        Some(path) => format!("path = \"{up}{}", path.trim_start_matches('/')),
        None => inner,
    };
    let more = rest.trim().trim_end_matches('}').trim();
    if more.contains("features") && inner.contains("features") {
        bail!("both the workspace and the crate name features of a dependency; name them in one place");
    }
    Ok(format!("{{ {inner}{more} }}"))
}

/// The value of a key in a section of the workspace's manifest.
fn value_of(key: &str, section: &str) -> anyhow::Result<&'static str> {
    let lines = embedded::WORKSPACE.lines().skip_while(|line| line.trim() != section).skip(1);
    let mut lines = lines.take_while(|line| !line.starts_with('['));
    let value = lines.find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='));
    value.map(str::trim).with_context(|| format!("`{key}` is not in {section} of the workspace, in one line"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_manifest_of_the_sdk_needs_the_workspace_and_each_path_is_there() {
        let files = files().expect("they can be written");
        let manifests: Vec<_> = files.iter().filter(|(path, _)| path.ends_with("Cargo.toml")).collect();
        assert!(manifests.len() >= 3, "{files:?}");
        for (path, text) in manifests {
            assert!(!text.contains("workspace"), "{path}:\n{text}");
            let folder = path.strip_suffix("Cargo.toml").expect("a manifest");
            for line in text.lines().filter(|line| line.contains("path = ")) {
                let (_, to) = line.split_once("path = \"").expect("it is there");
                let to = to.split('"').next().expect("it ends");
                let below = match to.strip_prefix("../") {
                    Some(to) => to.to_owned(),
                    None => format!("{folder}{to}"),
                };
                let manifest = format!("{}/Cargo.toml", below.trim_end_matches('/'));
                assert!(files.iter().any(|(path, _)| *path == manifest), "{path}: {line}: no {manifest}");
            }
        }
    }

    #[test]
    fn what_a_member_adds_to_a_dependency_is_kept() {
        let shown = |value, rest, folder| dependency(value, rest, folder).expect("it is understood");
        assert_eq!(shown("\"1\"", "", ""), "{ version = \"1\" }");
        assert_eq!(shown("\"1\"", ", features = [\"x\"] }", ""), "{ version = \"1\", features = [\"x\"] }");
        assert_eq!(shown("{ path = \"guest-sdk/abi\" }", "", "macros/"), "{ path = \"../abi\" }");
        assert_eq!(
            shown("{ path = \"guest-sdk/abi\" }", ", optional = true }", ""),
            "{ path = \"abi\", optional = true }"
        );
    }

    #[test]
    fn the_lock_has_what_the_sdk_needs_and_nothing_of_the_host() {
        let lock = lock();
        for name in ["weir-sdk", "weir-abi", "serde", "syn"] {
            assert!(lock.contains(&format!("[[package]]\nname = \"{name}\"\n")), "{name}:\n{lock}");
        }
        assert!(!lock.contains("name = \"wasmtime\""), "{lock}");
    }
}
