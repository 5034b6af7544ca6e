//! The host's modules stand on floors: a file imports from its own floor and those below, never from above.

use std::fs;
use std::path::{Path, PathBuf};

/// Every module of the host with its floor, from the bottom up. Within a floor, too, a module imports only from
/// those that stand before it here, so that nothing goes round in circles. A new module has to be given its place.
const FLOORS: [(&str, u8); 22] = [
    ("allocator", 0),
    ("clock", 0),
    ("drain", 0),
    ("telemetry", 0),
    ("config", 1),
    ("overload", 2),
    ("net", 2),
    ("http", 2),
    ("balance", 3),
    ("upstream", 3),
    ("plugin", 3),
    ("route", 4),
    ("snapshot", 4),
    ("proxy", 5),
    ("testbed", 5),
    ("reload", 6),
    ("admin", 6),
    ("app", 6),
    ("check", 6),
    ("author", 6),
    ("report", 6),
    ("main", 6),
];

/// Modules that never import each other, in either direction: a plugin calls out through a trait of its own.
const STRANGERS: [&str; 2] = ["upstream", "plugin"];

/// Why a module may not import another, when it may not.
fn objection(from: &str, to: &str) -> Option<String> {
    let place = |module: &str| FLOORS.iter().position(|(known, _)| *known == module);
    let (Some(own), Some(other)) = (place(from), place(to)) else {
        let unknown = if place(from).is_none() { from } else { to };
        return Some(format!("`{unknown}` has no floor yet: give it its place in FLOORS"));
    };
    let ((_, own_floor), (_, other_floor)) = (FLOORS[own], FLOORS[other]);
    if other_floor > own_floor {
        return Some(format!(
            "`{from}` (floor {own_floor}) imports `{to}` (floor {other_floor}), which is above it"
        ));
    }
    if other > own {
        return Some(format!("`{from}` imports `{to}`, which stands behind it on floor {own_floor}"));
    }
    let strangers = from != to && STRANGERS.contains(&from) && STRANGERS.contains(&to);
    strangers.then(|| format!("`{from}` imports `{to}`, and the two are to know nothing of each other"))
}

/// The modules that some source names behind `crate::`, each with the number of its line.
fn imports(source: &str) -> Vec<(usize, String)> {
    // Comments may point anywhere.
    let code = source.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    let code = code.collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        let line = code[..at].lines().count().max(1);
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            None => found.push((line, first_word(rest))),
            Some(group) => found.extend(members(group).into_iter().map(|member| (line, member))),
        }
    }
    found
}

/// The first names of what stands in a `use` group, up to its closing brace.
fn members(group: &str) -> Vec<String> {
    let mut members = vec![first_word(group)];
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => members.push(first_word(&group[at + 1..])),
            _ => {}
        }
    }
    members.retain(|member| !member.is_empty());
    members
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// All source files below a folder.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the host's source is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// The module at the root of the crate that a file belongs to.
fn module_of(relative: &Path) -> String {
    let first = relative.iter().next().expect("a file has a name").to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn no_module_imports_from_a_floor_above_its_own() {
    let root = xtask::cargo::root().join("host/src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.sort();
    let mut objections = Vec::new();
    let mut looked_at = 0;
    for file in &files {
        let relative = file.strip_prefix(&root).expect("it was found there");
        let from = module_of(relative);
        // The root only says which modules there are.
        if from == "lib" {
            continue;
        }
        let source = fs::read_to_string(file).expect("it can be read");
        let placed = objection(&from, &from).map(|objection| format!("{}: {objection}", relative.display()));
        objections.extend(placed);
        for (line, to) in imports(&source) {
            looked_at += 1;
            let place = format!("host/src/{}:{line}", relative.display());
            objections.extend(objection(&from, &to).map(|objection| format!("{place}: {objection}")));
        }
    }
    assert!(objections.is_empty(), "\n{}", objections.join("\n"));
    assert!(files.len() > 50 && looked_at > 200, "{} files, {looked_at} imports", files.len());
}

#[test]
fn imports_are_found_in_every_form_and_not_in_comments() {
    let source = "use crate::a::b;\n// crate::not\n/// [`crate::nor`]\nuse crate::{\n    c,\n    d::{e, f},\n    g,\n};\n\
                  pub(crate) fn x() { crate::h::i() }\n";
    let found: Vec<_> =
        imports(source).into_iter().map(|(line, module)| format!("{line} {module}")).collect();
    assert_eq!(found, ["1 a", "4 c", "4 d", "4 g", "9 h"]);
}

#[test]
fn what_goes_up_round_or_astray_is_objected_to() {
    assert_eq!(objection("proxy", "plugin"), None);
    assert_eq!(objection("http", "net"), None);
    assert_eq!(objection("plugin", "plugin"), None);
    for (from, to, why) in [
        ("config", "plugin", "which is above it"),
        ("net", "http", "which stands behind it"),
        ("plugin", "upstream", "know nothing of each other"),
        ("upstream", "plugin", "stands behind it"),
        ("novelty", "config", "`novelty` has no floor yet"),
        ("app", "novelty", "`novelty` has no floor yet"),
    ] {
        let objection = objection(from, to).unwrap_or_else(|| panic!("{from} may import {to}"));
        assert!(objection.contains(why), "{objection}");
    }
}
