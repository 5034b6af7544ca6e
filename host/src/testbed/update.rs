//! Writes into a file of cases what was seen, in the place of what was expected.
//!
//! Of the file only the blocks `expect` that did not fit change, and those are written anew; a stream without one is given
//! one that tells what the filter did.

use std::path::Path;

use anyhow::{Context, bail};
use http::HeaderMap;
use serde_json::{Map, Value as Json, json};

use crate::config::problem::Mark;
use crate::config::yaml::{Entry, Node, Value};
use crate::testbed::case::{CaseFile, Step};
use crate::testbed::compare::{Difference, call_json, text_json};
use crate::testbed::seen::Seen;

/// The text with other expectations; `None` when it is to stay as it is.
///
/// # Errors
/// When a block is written in a way that cannot be replaced.
pub fn rewrite(
    text: &str,
    file: &CaseFile,
    differences: &[&Difference],
    seen: &[(String, Vec<Seen>)],
    path: &Path,
) -> anyhow::Result<Option<String>> {
    let root = Node::parse(text).map_err(|(_, message)| anyhow::anyhow!(message))?;
    let mut edits = Vec::new();
    let cases = root.get("cases").map(items).unwrap_or_default();
    for (node, case) in cases.iter().zip(&file.cases) {
        let Some((_, seen)) = seen.iter().find(|(name, _)| *name == case.name.value) else { continue };
        let steps = node.get("steps").map(items).unwrap_or_default();
        let nodes: Vec<&Node> = if steps.is_empty() { vec![node] } else { steps.iter().collect() };
        for ((node, step), seen) in nodes.into_iter().zip(case.streams()).zip(seen) {
            let edit = match entry(node, "expect") {
                Some(entry) => replaced(entry, differences, text),
                None => added(node, &step, seen, text),
            };
            edits.extend(edit.with_context(|| format!("{}:{}", path.display(), node.at.line))?);
        }
    }
    if edits.is_empty() {
        return Ok(None);
    }
    let mut lines: Vec<&str> = text.lines().collect();
    edits.sort_by_key(|edit| std::cmp::Reverse(edit.from));
    for edit in &edits {
        lines.splice(edit.from..edit.to, edit.lines.iter().map(String::as_str));
    }
    Ok(Some(lines.join("\n") + "\n"))
}

/// Lines in the place of others, counted from 0.
struct Edit {
    from: usize,
    to: usize,
    lines: Vec<String>,
}

/// A block that did not fit, with what was seen in it.
fn replaced(entry: &Entry, differences: &[&Difference], text: &str) -> anyhow::Result<Option<Edit>> {
    let is_in = |difference: &&&Difference| {
        difference.instead.is_some() && contains(&entry.value, difference.place.at)
    };
    let fitting: Vec<&Difference> = differences.iter().filter(is_in).copied().collect();
    if fitting.is_empty() {
        return Ok(None);
    }
    let (from, to) = extent(text, entry.key_at)?;
    let mut lines = Vec::new();
    write_entry("expect", &with(&entry.value, &fitting), entry.key_at.column - 1, &mut lines);
    Ok(Some(Edit { from, to, lines }))
}

/// A block for a stream that has none.
fn added(node: &Node, step: &Step, seen: &Seen, text: &str) -> anyhow::Result<Option<Edit>> {
    let Value::Mapping(entries) = &node.value else { return Ok(None) };
    if step.request.is_none() && step.data.is_none() {
        return Ok(None);
    }
    let Some(last) = entries.last() else { return Ok(None) };
    let (_, to) = extent(text, last.key_at)?;
    let mut lines = Vec::new();
    write_entry("expect", &Json::Object(told(step, seen)), last.key_at.column - 1, &mut lines);
    Ok(Some(Edit { from: to, to, lines }))
}

/// What the filter did to a stream.
fn told(step: &Step, seen: &Seen) -> Map<String, Json> {
    let mut expect = Map::new();
    let mut put = |key: &str, value: Json| drop(expect.insert(key.to_owned(), value));
    if seen.closed {
        put("closed", true.into());
    }
    if let Some(cluster) = &seen.cluster {
        put("cluster", cluster.as_str().into());
    }
    if let (Some(sent), Some(got)) = (&step.request, &seen.request) {
        let mut request = changed(&sent.headers.0, &got.headers);
        if *sent.path.value != *got.path {
            request.insert("path".to_owned(), got.path.as_str().into());
        }
        if *sent.body.whole() != *got.body {
            request.insert("body".to_owned(), text_json(&got.body));
        }
        if !request.is_empty() {
            put("request", request.into());
        }
    }
    if step.request.is_some() && seen.request.is_none() {
        put("forwarded", false.into());
    }
    if let Some(got) = &seen.response {
        let nothing = HeaderMap::new();
        let sent = step.response.as_ref().filter(|_| !got.local);
        let mut response = changed(sent.map_or(&nothing, |sent| &sent.headers.0), &got.headers);
        response.insert("status".to_owned(), got.status.into());
        if sent.map(|sent| sent.body.whole()).unwrap_or_default() != got.body {
            response.insert("body".to_owned(), text_json(&got.body));
        }
        put("response", response.into());
    }
    if step.data.is_some() && !seen.closed {
        put("upstream_gets", text_json(&seen.upstream_gets));
        put("client_gets", text_json(&seen.client_gets));
    }
    if !seen.calls.is_empty() {
        put("calls", seen.calls.iter().map(call_json).collect());
    }
    expect
}

/// What Weir itself adds, and what is another each time.
const ANYWAY: [&str; 5] = ["x-request-id", "x-forwarded-for", "x-forwarded-proto", "date", "server"];

/// Headers that are not as they were sent, below `headers`.
fn changed(sent: &HeaderMap, got: &HeaderMap) -> Map<String, Json> {
    let mut headers = Map::new();
    let values = |map: &HeaderMap, name: &str| -> Vec<String> {
        map.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    };
    for name in sent.keys().chain(got.keys().filter(|name| !sent.contains_key(*name))) {
        let name = name.as_str();
        let now = values(got, name);
        if ANYWAY.contains(&name) || name == "content-length" || now == values(sent, name) {
            continue;
        }
        let value = match now.as_slice() {
            [] => Json::Null,
            [one] => one.as_str().into(),
            several => json!(several),
        };
        headers.insert(name.to_owned(), value);
    }
    let mut fields = Map::new();
    if !headers.is_empty() {
        fields.insert("headers".to_owned(), headers.into());
    }
    fields
}

fn items(node: &Node) -> &[Node] {
    match &node.value {
        Value::Sequence(items) => items,
        Value::Scalar { .. } | Value::Mapping(_) => &[],
    }
}

fn entry<'n>(node: &'n Node, key: &str) -> Option<&'n Entry> {
    match &node.value {
        Value::Mapping(entries) => entries.iter().find(|entry| entry.key == key),
        Value::Scalar { .. } | Value::Sequence(_) => None,
    }
}

/// Whether a node begins at a mark, or one in it does.
fn contains(node: &Node, at: Mark) -> bool {
    let inside = match &node.value {
        Value::Scalar { .. } => false,
        Value::Sequence(items) => items.iter().any(|item| contains(item, at)),
        Value::Mapping(entries) => entries.iter().any(|entry| contains(&entry.value, at)),
    };
    node.at == at || inside
}

/// A node as JSON, with what was seen in the place of what did not fit.
fn with(node: &Node, differences: &[&Difference]) -> Json {
    let own = differences.iter().find(|difference| difference.place.at == node.at);
    if let Some(instead) = own.and_then(|difference| difference.instead.clone()) {
        return instead;
    }
    match &node.value {
        Value::Scalar { .. } => node.to_json(),
        Value::Sequence(items) => items.iter().map(|item| with(item, differences)).collect(),
        Value::Mapping(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), with(&entry.value, differences))).collect()
        }
    }
}

/// The lines of a block that begins with a key: up to the next line that is not further in, blank lines and comments
/// behind it left alone.
fn extent(text: &str, key: Mark) -> anyhow::Result<(usize, usize)> {
    let from = key.line.saturating_sub(1);
    let column = key.column.saturating_sub(1);
    let line = text.lines().nth(from).unwrap_or_default();
    let before: String = line.chars().take(column).collect();
    if !before.chars().all(|c| c == ' ' || c == '-') {
        bail!("`expect` stands in one line with other fields; give it a line of its own");
    }
    let is_further_in = |line: &&str| {
        let indent = line.len() - line.trim_start().len();
        line.trim().is_empty()
            || indent > column
            || line.trim_start().starts_with(['}', ']']) && indent == column
            || line.trim_start().starts_with("- ") && indent == column && !before.contains('-')
    };
    let body: Vec<&str> = text.lines().skip(from + 1).take_while(is_further_in).collect();
    let is_void = |line: &&&str| line.trim().is_empty() || line.trim_start().starts_with('#');
    let trailing = body.iter().rev().take_while(is_void).count();
    Ok((from, from + 1 + body.len() - trailing))
}

/// Writes `key: value` in block style.
fn write_entry(key: &str, value: &Json, indent: usize, lines: &mut Vec<String>) {
    let pad = " ".repeat(indent);
    let key = quoted(key);
    match value {
        Json::Object(fields) if !fields.is_empty() => {
            lines.push(format!("{pad}{key}:"));
            fields.iter().for_each(|(key, value)| write_entry(key, value, indent + 2, lines));
        }
        Json::Array(values) if !values.is_empty() && values.iter().any(Json::is_object) => {
            lines.push(format!("{pad}{key}:"));
            values.iter().for_each(|value| write_item(value, indent + 2, lines));
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) | Json::Object(_) => {
            lines.push(format!("{pad}{key}: {}", scalar(value)));
        }
    }
}

fn write_item(value: &Json, indent: usize, lines: &mut Vec<String>) {
    let Json::Object(fields) = value else {
        return lines.push(format!("{}- {}", " ".repeat(indent), scalar(value)));
    };
    let first = lines.len();
    fields.iter().for_each(|(key, value)| write_entry(key, value, indent + 2, lines));
    if let Some(line) = lines.get_mut(first) {
        line.replace_range(indent..=indent, "-");
    }
}

/// A value in one line: JSON, or a word without its quotes where that means the same.
fn scalar(value: &Json) -> String {
    match value {
        Json::String(text) => quoted(text),
        Json::Array(values) => format!("[{}]", values.iter().map(scalar).collect::<Vec<_>>().join(", ")),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_) => value.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/' | '.' | ' ');
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(plain)
        && !text.ends_with(' ')
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "null" | "true" | "false" | "yes" | "no" | "on" | "off"
        );
    if is_word { text.to_owned() } else { Json::from(text).to_string() }
}
