//! What a plugin says its configuration may be, as JSON Schema, held against a configuration as it stands in a file.
//!
//! The schema is the plugin's and may be anything. What is looked at are the keywords that schemas of Rust types are made
//! of; others are passed over, so that a schema that says more only finds less. The plugin has the last word in any
//! case, when it is configured.

use std::cell::Cell;

use serde_json::Value as Json;
use wasmparser::{Parser, Payload};
use weir_abi::PLUGIN_SECTION;

use crate::config::problem::{Mark, suggest};
use crate::config::yaml::{Entry, Node, Value};

/// The longest section that is read, in bytes.
const LONGEST: usize = 64 << 10;

/// How deep schemas may refer and nest, and how often one configuration is held against a part of one.
const DEEPEST: usize = 64;
const MOST_STEPS: usize = 1_000_000;

/// The schema of a plugin's configuration.
#[derive(Debug)]
pub struct Schema(Json);

/// Something of a configuration that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Where it stands.
    pub at: Mark,
    /// Its field, below the configuration: `.rules[0].allow`; empty for the configuration itself.
    pub field: String,
    /// What is wrong, and the cure.
    pub message: String,
}

impl Schema {
    /// The schema that a module holds; `None` when it holds none that can be read.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let mut payloads = Parser::new(0).parse_all(bytes).map_while(Result::ok);
        let section = payloads.find_map(|payload| {
            let Payload::CustomSection(section) = payload else { return None };
            (section.name() == PLUGIN_SECTION).then(|| section.data())
        })?;
        if section.len() > LONGEST {
            return None;
        }
        let mut described: Json = serde_json::from_slice(section).ok()?;
        described.get_mut("config").map(|schema| Self(schema.take()))
    }

    /// Everything of a configuration that does not fit.
    pub fn mismatches(&self, config: &Node) -> Vec<Mismatch> {
        let steps = Cell::new(MOST_STEPS);
        let mut search =
            Search { root: &self.0, steps: &steps, found: Vec::new(), path: String::new(), depth: 0 };
        search.look(&self.0, config);
        search.found
    }
}

struct Search<'a> {
    root: &'a Json,
    /// How many are left: a schema may refer to itself twice.
    steps: &'a Cell<usize>,
    found: Vec<Mismatch>,
    path: String,
    depth: usize,
}

impl<'a> Search<'a> {
    fn wrong(&mut self, at: Mark, message: String) {
        self.found.push(Mismatch { at, field: self.path.clone(), message });
    }

    fn below(&mut self, field: &str, schema: &'a Json, node: &Node) {
        let len = self.path.len();
        self.path.push_str(field);
        self.look(schema, node);
        self.path.truncate(len);
    }

    fn look(&mut self, schema: &'a Json, node: &Node) {
        let left = self.steps.get();
        if self.depth >= DEEPEST || left == 0 {
            return;
        }
        self.steps.set(left - 1);
        self.depth += 1;
        if *schema == Json::Bool(false) {
            self.wrong(node.at, "nothing may stand here".to_owned());
        } else {
            self.look_at(schema, node);
        }
        self.depth -= 1;
    }

    fn look_at(&mut self, schema: &'a Json, node: &Node) {
        if let Some(named) = schema.get("$ref").and_then(Json::as_str).and_then(|name| name.strip_prefix('#'))
            && let Some(schema) = self.root.pointer(named)
        {
            self.look(schema, node);
        }
        if let Some(expected) = schema.get("type").and_then(|expected| unexpected(expected, node)) {
            return self.wrong(node.at, format!("{expected} is expected here, not {}", kind(node)));
        }
        let constant = schema.get("const").map(std::slice::from_ref);
        if let Some(known) = schema.get("enum").and_then(Json::as_array).map(Vec::as_slice).or(constant) {
            self.look_at_words(known, node);
        }
        for part in schema.get("allOf").and_then(Json::as_array).into_iter().flatten() {
            self.look(part, node);
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(choices) = schema.get(keyword).and_then(Json::as_array) {
                self.look_at_choices(choices, node);
            }
        }
        match &node.value {
            Value::Mapping(entries) => self.look_at_mapping(schema, node, entries),
            Value::Sequence(items) => self.look_at_list(schema, node, items),
            Value::Scalar { .. } => self.look_at_scalar(schema, node),
        }
    }

    fn look_at_words(&mut self, known: &[Json], node: &Node) {
        let value = node.to_json();
        if known.contains(&value) {
            return;
        }
        let words: Vec<String> = known.iter().map(shown).collect();
        let hint = suggest(&shown(&value), words.iter().map(String::as_str));
        self.wrong(node.at, format!("`{}` is not known here{hint}", shown(&value)));
    }

    /// One of them must fit. When none does, what is told is what is wrong with the one that was most likely meant: where
    /// the search came farthest.
    fn look_at_choices(&mut self, choices: &'a [Json], node: &Node) {
        let mut nearest: Option<Vec<Mismatch>> = None;
        for choice in choices {
            let (root, steps, path) = (self.root, self.steps, self.path.clone());
            let mut search = Search { root, steps, found: Vec::new(), path, depth: self.depth };
            search.look(choice, node);
            let found = search.found;
            if found.is_empty() {
                return;
            }
            let far = |found: &[Mismatch]| {
                let deep = found.iter().map(|mismatch| mismatch.field.len()).max();
                let of_kind =
                    !found.iter().any(|mismatch| mismatch.message.contains(" is expected here, not "));
                (deep, of_kind, usize::MAX - found.len())
            };
            if nearest.as_deref().is_none_or(|nearest| far(&found) > far(nearest)) {
                nearest = Some(found);
            }
        }
        self.found.extend(nearest.into_iter().flatten());
    }

    fn look_at_mapping(&mut self, schema: &'a Json, node: &Node, entries: &[Entry]) {
        let properties = schema.get("properties").and_then(Json::as_object);
        let others = schema.get("additionalProperties");
        for entry in entries {
            let field = format!(".{}", entry.key);
            match (properties.and_then(|properties| properties.get(&entry.key)), others) {
                (Some(schema), _) => self.below(&field, schema, &entry.value),
                (None, Some(Json::Bool(false))) => {
                    let known = properties.into_iter().flat_map(|properties| properties.keys());
                    let hint = suggest(&entry.key, known.map(String::as_str));
                    let message = format!("unknown field `{}`{hint}", entry.key);
                    let field = format!("{}{field}", self.path);
                    self.found.push(Mismatch { at: entry.key_at, field, message });
                }
                (None, Some(schema)) => self.below(&field, schema, &entry.value),
                (None, None) => {}
            }
        }
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten();
        for name in required.filter_map(Json::as_str) {
            if node.get(name).is_none() {
                self.wrong(node.at, format!("the field `{name}` is missing; add it"));
            }
        }
    }

    fn look_at_list(&mut self, schema: &'a Json, node: &Node, items: &[Node]) {
        let first = schema.get("prefixItems").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        let rest = schema.get("items");
        for (at, item) in items.iter().enumerate() {
            if let Some(schema) = first.get(at).or(rest) {
                self.below(&format!("[{at}]"), schema, item);
            }
        }
        let bound = |name: &str| schema.get(name).and_then(Json::as_u64);
        let len = items.len() as u64;
        if let Some(least) = bound("minItems").filter(|least| len < *least) {
            self.wrong(node.at, format!("at least {least} are expected here, not {len}"));
        }
        if let Some(most) = bound("maxItems").filter(|most| len > *most) {
            self.wrong(node.at, format!("at most {most} are expected here, not {len}"));
        }
    }

    fn look_at_scalar(&mut self, schema: &'a Json, node: &Node) {
        let value = node.to_json();
        if let Some(text) = value.as_str() {
            let len = text.chars().count() as u64;
            if let Some(least) = schema.get("minLength").and_then(Json::as_u64).filter(|least| len < *least) {
                self.wrong(node.at, format!("a text of at least {least} characters is expected here"));
            }
            if let Some(most) = schema.get("maxLength").and_then(Json::as_u64).filter(|most| len > *most) {
                self.wrong(node.at, format!("a text of at most {most} characters is expected here"));
            }
        }
        let Some(number) = value.as_f64() else { return };
        for (name, fits) in [
            ("minimum", (|number, bound| number >= bound) as fn(f64, f64) -> bool),
            ("maximum", |number, bound| number <= bound),
        ] {
            if let Some(bound) = schema.get(name)
                && bound.as_f64().is_some_and(|bound| !fits(number, bound))
            {
                let word = if name == "minimum" { "at least" } else { "at most" };
                self.wrong(
                    node.at,
                    format!("`{}` is out of range: {word} {bound} is expected here", shown(&value)),
                );
            }
        }
    }
}

/// What is expected, when a node is nothing of that.
fn unexpected(expected: &Json, node: &Node) -> Option<String> {
    let names: Vec<&str> = match expected.as_array() {
        Some(names) => names.iter().filter_map(Json::as_str).collect(),
        None => expected.as_str().into_iter().collect(),
    };
    let value = match &node.value {
        Value::Mapping(_) => Json::Object(serde_json::Map::new()),
        Value::Sequence(_) => Json::Array(Vec::new()),
        Value::Scalar { .. } => node.to_json(),
    };
    let fits = |name: &&str| match *name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => true,
    };
    if names.is_empty() || names.iter().any(fits) {
        return None;
    }
    let words: Vec<&str> = names.iter().map(|name| word(name)).collect();
    Some(words.join(" or "))
}

fn word(name: &str) -> &'static str {
    match name {
        "object" => "a mapping",
        "array" => "a list",
        "string" => "a text",
        "boolean" => "`true` or `false`",
        "null" => "nothing",
        "integer" => "a whole number",
        _ => "a number",
    }
}

/// What a message calls what stands there.
fn kind(node: &Node) -> String {
    match &node.value {
        Value::Mapping(_) => "a mapping".to_owned(),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Scalar { .. } if node.is_null() => "nothing".to_owned(),
        Value::Scalar { .. } => {
            let value = node.to_json();
            value.as_str().map_or_else(|| format!("`{value}`"), |text| format!("the text `{text}`"))
        }
    }
}

fn shown(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(schema: &Json, config: &str) -> Vec<String> {
        let node = Node::parse(config).expect("YAML");
        let mismatches = Schema(schema.clone()).mismatches(&node);
        let show = |m: Mismatch| format!("{}:{} {} {}", m.at.line, m.at.column, m.field, m.message);
        mismatches.into_iter().map(show).collect()
    }

    #[test]
    fn every_slip_is_told_with_its_line_and_field() {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["keys"],
            "properties": {
                "keys": { "type": "array", "items": { "type": "string" } },
                "limit": { "anyOf": [{ "type": "integer", "minimum": 0, "maximum": 255 }, { "type": "null" }] },
                "mode": { "enum": ["strict", "lenient"] },
                "nested": { "$ref": "#/$defs/Nested" },
            },
            "$defs": { "Nested": { "type": "object", "additionalProperties": { "type": "boolean" } } },
        });
        assert!(found(&schema, "keys: [a]\nlimit: 3\nmode: strict\nnested: { a: true }").is_empty());
        assert!(found(&schema, "keys: []\nlimit: null").is_empty());
        assert_eq!(
            found(&schema, "kyes: [a]\nlimit: 300\nmode: strikt\nnested:\n  a: 1\n"),
            [
                "1:1 .kyes unknown field `kyes`; did you mean `keys`?",
                "2:8 .limit `300` is out of range: at most 255 is expected here",
                "3:7 .mode `strikt` is not known here; did you mean `strict`?",
                "5:6 .nested.a `true` or `false` is expected here, not `1`",
                "1:1  the field `keys` is missing; add it",
            ]
        );
        assert_eq!(found(&schema, "keys: [a, 1]"), ["1:11 .keys[1] a text is expected here, not `1`"]);
    }

    #[test]
    fn of_several_choices_the_one_that_was_meant_is_told_about() {
        let schema = json!({ "anyOf": [
            { "enum": ["all"] },
            { "type": "object", "properties": { "list": { "type": "array", "items": { "type": "integer" } } }, "required": ["list"] },
        ] });
        assert!(found(&schema, "all").is_empty() && found(&schema, "list: [1]").is_empty());
        assert_eq!(
            found(&schema, "list: [x]"),
            ["1:8 .list[0] a whole number is expected here, not the text `x`"]
        );
        assert_eq!(found(&schema, "al"), ["1:1  `al` is not known here; did you mean `all`?"]);
    }

    #[test]
    fn a_schema_that_turns_in_circles_or_says_nonsense_finds_nothing() {
        for schema in [
            json!({ "$ref": "#" }),
            json!({ "allOf": [{ "$ref": "#" }, { "$ref": "#" }] }),
            json!({ "type": 7, "enum": 3, "properties": [], "items": "x", "required": [1] }),
            json!("nonsense"),
        ] {
            assert!(found(&schema, "a: [1]").is_empty(), "{schema}");
        }
    }
}
