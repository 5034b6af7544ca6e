//! How a section is declared: its fields, their documentation, types and defaults once, and from that the
//! reader (which reports every mistake, not the first), the JSON Schema and the reference page.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use crate::config::problem::{Mark, Place, Problems, suggest};
use crate::config::yaml::{Node, Value};

/// A type that a configuration can hold.
pub trait Read: Sized {
    /// Reads a node. What cannot be read is reported; then the result is `None`, or what could be read of it.
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self>;

    /// The JSON Schema of what [`Read::read`] takes. Sections add themselves to `definitions`.
    fn schema(definitions: &mut Definitions) -> Json;

    /// The value as it would stand in a file, for those who ask what is in force.
    fn to_json(&self) -> Json;

    /// What an absent field without a default means; `None` makes the field mandatory.
    fn absent() -> Option<Self> {
        None
    }

    /// Whether `null` is a value like others. Elsewhere a field that is `null` is one that is not there.
    fn takes_null() -> bool {
        false
    }

    /// What stands in for a value that could not be read, so that what is around it can be checked too. A
    /// configuration that holds one is never used.
    fn recovered() -> Option<Self> {
        None
    }
}

/// The sections that a schema refers to, by name.
pub type Definitions = serde_json::Map<String, Json>;

/// Where a reader stands, and what it found wrong so far.
#[derive(Debug)]
pub struct Context<'a> {
    file: &'a Path,
    problems: Problems,
    path: String,
}

impl<'a> Context<'a> {
    /// The beginning of `file`.
    pub fn new(file: &'a Path) -> Self {
        Self { file, problems: Problems::default(), path: String::new() }
    }

    /// Reports a problem in the field that is being read.
    pub fn problem(&mut self, at: Mark, message: impl Into<String>) {
        self.problem_at(&self.place(at), message);
    }

    /// Reports a problem in a field that was read before. One that could not be read has no place, and what is wrong
    /// with it has been told.
    pub fn problem_at(&mut self, place: &Place, message: impl Into<String>) {
        if *place == Place::default() && !self.problems.0.is_empty() {
            return;
        }
        self.problems.0.push(place.problem(self.file, message));
    }

    /// The field that is being read.
    pub fn place(&self, at: Mark) -> Place {
        Place { at, field: self.path.as_str().into() }
    }

    /// Reports a problem in a field below the one that is being read.
    pub fn problem_in(&mut self, field: &str, at: Mark, message: impl Into<String>) {
        self.below(field, |cx| cx.problem(at, message));
    }

    /// Runs `f` one field down: `name` or `[0]`.
    pub fn below<T>(&mut self, field: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        let len = self.path.len();
        if len > 0 && !field.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(field);
        let result = f(self);
        self.path.truncate(len);
        result
    }

    /// A path of the file system; relative ones start at the configuration file.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    /// What was found wrong.
    pub fn finish(self) -> Problems {
        self.problems
    }
}

/// A section's mapping while it is read. The macro [`section!`] uses it; nothing else needs to.
#[derive(Debug)]
pub struct Fields<'n, 'c, 'f> {
    node: &'n Node,
    cx: &'c mut Context<'f>,
}

impl<'n, 'c, 'f> Fields<'n, 'c, 'f> {
    /// Opens a mapping and reports the fields that it should not have.
    pub fn open(node: &'n Node, cx: &'c mut Context<'f>, known: &[&str]) -> Option<Self> {
        match &node.value {
            Value::Mapping(entries) => {
                for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
                    let hint = suggest(&entry.key, known.iter().copied());
                    cx.problem_in(&entry.key, entry.key_at, format!("unknown field `{}`{hint}", entry.key));
                }
            }
            Value::Scalar { text, .. } if text.is_empty() || node.is_null() => {}
            Value::Scalar { .. } | Value::Sequence(_) => {
                cx.problem(node.at, format!("a mapping is expected here, not {}", node.kind()));
                return None;
            }
        }
        Some(Self { node, cx })
    }

    /// Reads a field, or its default.
    pub fn take<T: Read>(&mut self, key: &str, default: Option<&str>) -> Option<T> {
        let at = self.node.at;
        self.cx.below(key, |cx| {
            if let Some(value) = self.node.get(key).filter(|value| T::takes_null() || !value.is_null()) {
                return T::read(value, cx).or_else(T::recovered).or_else(T::absent);
            }
            if let Some(text) = default {
                return T::read(&default_node(text, at), cx);
            }
            T::absent().or_else(|| {
                cx.problem(at, format!("the field `{key}` is missing; add it"));
                T::recovered()
            })
        })
    }
}

/// A default as if it stood in the file.
fn default_node(text: &str, at: Mark) -> Node {
    Node { at, value: Value::Scalar { text: text.to_owned(), plain: !text.is_empty() } }
}

/// Declares a section: a struct whose every field has its documentation, its type and perhaps its default.
///
/// `key as "name": Type = "default"`: `as` gives the field another name in the file (for keywords), and the
/// default is written as a user would write it.
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        $vis:vis struct $name:ident {
            $($(#[doc = $fdoc:literal])* $field:ident $(as $key:literal)? : $ty:ty $(= $default:literal)?,)*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $name { $($(#[doc = $fdoc])* pub $field: $ty,)* }

        impl $crate::config::section::Read for $name {
            fn read(
                node: &$crate::config::yaml::Node,
                cx: &mut $crate::config::section::Context<'_>,
            ) -> Option<Self> {
                use $crate::config::section::{Fields, key, optional};
                let mut fields = Fields::open(node, cx, &[$(key!($field $(as $key)?)),*])?;
                $(let $field = fields.take::<$ty>(key!($field $(as $key)?), optional!($($default)?));)*
                Some(Self { $($field: $field?,)* })
            }

            fn schema(definitions: &mut $crate::config::section::Definitions) -> serde_json::Value {
                use $crate::config::section::{Read, SectionSchema, key, optional};
                if !definitions.contains_key(stringify!($name)) {
                    // A placeholder first, so that a section may hold itself.
                    definitions.insert(stringify!($name).to_owned(), serde_json::Value::Null);
                    let mut schema = SectionSchema::new(concat!($($doc, "\n"),*));
                    $(
                        let field = <$ty as Read>::schema(definitions);
                        let mandatory = optional!($($default)?).is_none() && <$ty as Read>::absent().is_none();
                        schema.field(
                            key!($field $(as $key)?), concat!($($fdoc, "\n"),*), field, optional!($($default)?), mandatory,
                        );
                    )*
                    definitions.insert(stringify!($name).to_owned(), schema.finish());
                }
                serde_json::json!({ "$ref": concat!("#/$defs/", stringify!($name)) })
            }

            fn to_json(&self) -> serde_json::Value {
                use $crate::config::section::{Read, key};
                let mut fields = serde_json::Map::new();
                $(
                    let value = Read::to_json(&self.$field);
                    if !value.is_null() {
                        fields.insert(key!($field $(as $key)?).to_owned(), value);
                    }
                )*
                fields.into()
            }
        }
    };
}

/// The name of a field in the file.
macro_rules! key {
    ($field:ident as $key:literal) => {
        $key
    };
    ($field:ident) => {
        stringify!($field)
    };
}

/// An optional literal as an `Option<&str>`.
macro_rules! optional {
    () => {
        Option::<&str>::None
    };
    ($default:literal) => {
        Some($default)
    };
}

/// Declares a choice between words.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])*
        $vis:vis enum $name:ident { $($(#[doc = $vdoc:literal])* $variant:ident = $word:literal,)+ }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $name { $($(#[doc = $vdoc])* $variant,)+ }

        impl $name {
            /// The word for it in the configuration.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl $crate::config::section::Read for $name {
            fn read(
                node: &$crate::config::yaml::Node,
                cx: &mut $crate::config::section::Context<'_>,
            ) -> Option<Self> {
                let text = $crate::config::section::text(node, cx)?;
                match text {
                    $($word => Some(Self::$variant),)+
                    _ => {
                        let hint = $crate::config::problem::suggest(text, [$($word),+]);
                        cx.problem(node.at, format!("`{text}` is not possible here{hint}"));
                        None
                    }
                }
            }

            fn schema(_: &mut $crate::config::section::Definitions) -> serde_json::Value {
                serde_json::json!({ "enum": [$($word),+] })
            }

            fn to_json(&self) -> serde_json::Value {
                self.word().into()
            }
        }
    };
}

pub(crate) use {choice, key, optional, section};

/// Gathers the schema of one section.
#[derive(Debug)]
pub struct SectionSchema {
    doc: String,
    properties: serde_json::Map<String, Json>,
    required: Vec<String>,
}

impl SectionSchema {
    /// A section without fields yet.
    pub fn new(doc: &str) -> Self {
        Self { doc: prose(doc), properties: serde_json::Map::new(), required: Vec::new() }
    }

    /// Adds a field.
    pub fn field(&mut self, key: &str, doc: &str, mut schema: Json, default: Option<&str>, mandatory: bool) {
        if let Json::Object(fields) = &mut schema {
            fields.insert("description".to_owned(), prose(doc).into());
            if let Some(default) = default
                && !fields.contains_key("$ref")
            {
                fields.insert("default".to_owned(), default_node(default, Mark::default()).to_json());
            }
        }
        self.properties.insert(key.to_owned(), schema);
        if mandatory {
            self.required.push(key.to_owned());
        }
    }

    /// The section's schema.
    pub fn finish(self) -> Json {
        json!({
            "description": self.doc,
            "type": "object",
            "properties": self.properties,
            "required": self.required,
            "additionalProperties": false,
        })
    }
}

/// A doc comment as running text.
fn prose(doc: &str) -> String {
    doc.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// The text of a scalar.
pub fn text<'n>(node: &'n Node, cx: &mut Context<'_>) -> Option<&'n str> {
    match &node.value {
        Value::Scalar { text, .. } if !node.is_null() => Some(text),
        Value::Scalar { .. } | Value::Sequence(_) | Value::Mapping(_) => {
            cx.problem(node.at, format!("a word or a number is expected here, not {}", node.kind()));
            None
        }
    }
}
