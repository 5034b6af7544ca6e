//! YAML (and so JSON) as a tree that knows where everything stands.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::config::problem::Mark;

/// A node and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub at: Mark,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A scalar, as written. `plain`: without quotes, so that it may mean a number, a boolean or null.
    Scalar {
        /// The text.
        text: String,
        /// Whether it stood without quotes.
        plain: bool,
    },
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping, in the order of the file. Keys are unique.
    Mapping(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_at: Mark,
    /// The value.
    pub value: Node,
}

/// The most nodes that a file may expand to, so that aliases cannot multiply without end.
const MAX_NODES: usize = 1_000_000;

/// How deep a file may nest.
const MAX_DEPTH: usize = 64;

impl Node {
    /// Reads the one document of `text`. An empty text is an empty mapping.
    ///
    /// # Errors
    /// Where and why it is not YAML, or not one document, or larger than any configuration.
    pub fn parse(text: &str) -> Result<Self, (Mark, String)> {
        let mut builder = Builder { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
        builder.document()
    }

    /// Whether this is `null`, `~` or nothing at all.
    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain: true } => {
                matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            Value::Scalar { .. } | Value::Sequence(_) | Value::Mapping(_) => false,
        }
    }

    /// The entry of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Mapping(entries) => {
                entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
            }
            Value::Scalar { .. } | Value::Sequence(_) => None,
        }
    }

    /// What a message calls it.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { .. } => "a scalar",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }

    /// The node as JSON, by YAML 1.2's core schema.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Scalar { text, plain } => scalar_to_json(text, *plain),
            Value::Sequence(items) => items.iter().map(Self::to_json).collect(),
            Value::Mapping(entries) => {
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect()
            }
        }
    }
}

fn scalar_to_json(text: &str, plain: bool) -> serde_json::Value {
    use serde_json::Value;
    if !plain {
        return text.into();
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return true.into(),
        "false" | "False" | "FALSE" => return false.into(),
        _ => {}
    }
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    if let Ok(number) = text.parse::<u64>() {
        return number.into();
    }
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    match text.parse::<f64>() {
        Ok(number) if numeric && number.is_finite() => number.into(),
        Ok(_) | Err(_) => text.into(),
    }
}

struct Builder<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

type Failure = (Mark, String);

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Mark), Failure> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, mark(span))),
            Some(Err(error)) => {
                let at = error.marker();
                Err((Mark { line: at.line(), column: at.col() + 1 }, format!("not YAML: {}", error.info())))
            }
            None => Err((Mark::default(), "the file ends too early".to_owned())),
        }
    }

    fn document(&mut self) -> Result<Node, Failure> {
        let empty = Node { at: Mark { line: 1, column: 1 }, value: Value::Mapping(Vec::new()) };
        let mut document = None;
        loop {
            let (event, at) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                Event::Alias(_)
                | Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..)
                | Event::MappingEnd => {
                    if document.is_some() {
                        let message = "a second document begins here; a configuration is one document";
                        return Err((at, message.to_owned()));
                    }
                    document = Some(self.node(event, at, 0)?);
                }
            }
        }
        Ok(document.filter(|node| !node.is_null()).unwrap_or(empty))
    }

    fn node(&mut self, event: Event<'a>, at: Mark, depth: usize) -> Result<Node, Failure> {
        self.count(1, at)?;
        if depth > MAX_DEPTH {
            return Err((at, format!("nested more than {MAX_DEPTH} levels deep")));
        }
        let before = self.nodes;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                (Value::Scalar { text: text.into_owned(), plain }, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(depth)?, anchor),
            Event::Alias(anchor) => {
                let (node, size) = self
                    .anchors
                    .get(&anchor)
                    .cloned()
                    .ok_or((at, "unknown or recursive alias".to_owned()))?;
                self.count(size, at)?;
                return Ok(Node { at, value: node.value });
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => {
                return Err((at, "not YAML: something else was expected here".to_owned()));
            }
        };
        let node = Node { at, value };
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }

    fn count(&mut self, nodes: usize, at: Mark) -> Result<(), Failure> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err((at, format!("the file expands to more than {MAX_NODES} values")));
        }
        Ok(())
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, Failure> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::Sequence(items)),
                (event, at) => items.push(self.node(event, at, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, Failure> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: HashMap<String, Mark> = HashMap::new();
        loop {
            let (key, key_at) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Value::Mapping(entries)),
                (Event::Scalar(key, ..), at) => (key.into_owned(), at),
                (_, at) => return Err((at, "a key must be a word, not a list or a mapping".to_owned())),
            };
            if let Some(first) = seen.insert(key.clone(), key_at) {
                return Err((
                    key_at,
                    format!("`{key}` is here a second time; the first is in line {}", first.line),
                ));
            }
            let (event, at) = self.next()?;
            entries.push(Entry { key, key_at, value: self.node(event, at, depth + 1)? });
        }
    }
}

fn mark(span: Span) -> Mark {
    Mark { line: span.start.line(), column: span.start.col() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_knows_its_line_and_column() {
        let node = Node::parse("a: 1\nb:\n  - x\n  - {c: y}\n").expect("YAML");
        let list = node.get("b").expect("b");
        assert_eq!(list.at, Mark { line: 3, column: 3 });
        let Value::Sequence(items) = &list.value else { panic!("a list") };
        assert_eq!(items[1].get("c").expect("c").at, Mark { line: 4, column: 9 });
    }

    #[test]
    fn plain_scalars_become_typed_json_and_quoted_ones_stay_text() {
        let node = Node::parse("[1, -2.5, true, off, ~, '1', 1.2.3, 0x1f, .inf]").expect("YAML");
        assert_eq!(
            node.to_json(),
            serde_json::json!([1, -2.5, true, "off", null, "1", "1.2.3", "0x1f", ".inf"])
        );
    }

    #[test]
    fn json_is_read_too() {
        let node = Node::parse("{\"a\": [1, \"two\", {\"b\": null}]}").expect("JSON is YAML");
        assert_eq!(node.to_json(), serde_json::json!({"a": [1, "two", {"b": null}]}));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let (at, message) = Node::parse("a: 1\na: 2\n").expect_err("twice");
        assert_eq!((at.line, at.column), (2, 1));
        assert!(message.contains("second time"), "{message}");
        assert!(Node::parse("a: [1, 2").is_err());
        assert!(Node::parse("a: 1\n---\nb: 2\n").expect_err("two").1.contains("second document"));
    }

    #[test]
    fn aliases_are_followed_and_bombs_defused() {
        let node = Node::parse("a: &x {k: v}\nb: *x\n").expect("YAML");
        assert_eq!(node.to_json(), serde_json::json!({"a": {"k": "v"}, "b": {"k": "v"}}));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            let list = vec![format!("*a{}", n - 1); 10].join(", ");
            bomb.push_str(&format!("a{n}: &a{n} [{list}]\n"));
        }
        assert!(Node::parse(&bomb).expect_err("a bomb").1.contains("expands"));
        assert!(Node::parse(&"[".repeat(100_000)).is_err());
    }
}
