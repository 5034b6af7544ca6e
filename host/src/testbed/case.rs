//! Cases as they are written: a file of YAML for one plugin.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value as Json;

use crate::config::filter::Filter;
use crate::config::problem::{Mark, Problem, Problems};
use crate::config::section::{Context, Definitions, Read, section};
use crate::config::value::Spanned;
use crate::config::yaml::{Entry, Node, Value};
use crate::testbed::answers::Call;
use crate::testbed::facts::{ConnectionFacts, Direction, RequestFacts, ResponseFacts, RouteInfo, Time};
use crate::testbed::message::Texts;
use crate::testbed::wanted::{Expect, Wanted};

section! {
    /// Cases for one plugin.
    pub struct CaseFile {
        /// The plugin, when the command is not told: a `.wasm` file.
        plugin: Option<PathBuf>,
        /// The filter, as it would stand in a chain, without its plugin.
        filter: Use = "",
        /// Filters that stand before it in the chain.
        before: Vec<Neighbour>,
        /// Filters that stand behind it in the chain.
        behind: Vec<Neighbour>,
        /// The time of day at which each case begins.
        time: Time = "2026-01-01T00:00:00Z",
        /// The connection of each stream.
        connection: Option<ConnectionFacts>,
        /// The route of each request.
        route: Option<RouteInfo>,
        /// What clusters answer, behind what a case itself says.
        calls: Vec<Call>,
        /// Shared data that is there at the beginning.
        shared_data: Texts,
        /// Cases.
        cases: Vec<Spanned<Case>>,
    }
}

section! {
    /// A case: a plugin that is started, and one stream or several.
    pub struct Case {
        /// What it shows, as a sentence.
        name: Spanned<String>,
        /// The filter, in the place of the file's.
        filter: Option<Use>,
        /// Filters that stand before it, in the place of those in the file.
        before: Option<Vec<Neighbour>>,
        /// Filters that stand behind it, in the place of those in the file.
        behind: Option<Vec<Neighbour>>,
        /// The filter's configuration, in the place of that in the file.
        config: Option<Spanned<Json>>,
        /// The time of day at which it begins.
        time: Option<Time>,
        /// What clusters answer. The first that fits counts.
        calls: Vec<Call>,
        /// Shared data that is there at the beginning.
        shared_data: Texts,
        /// That the plugin refuses its configuration, and what it says.
        refused: Option<Spanned<Wanted>>,
        /// How much time goes by before.
        after: Option<Duration>,
        /// The connection.
        connection: Option<ConnectionFacts>,
        /// The route.
        route: Option<RouteInfo>,
        /// The request of the only stream.
        request: Option<RequestFacts>,
        /// What the upstream answers.
        response: Option<ResponseFacts>,
        /// What comes on a connection, for network filters.
        data: Option<Vec<Direction>>,
        /// What is expected.
        expect: Option<Expect>,
        /// Several streams, one after the other, in the same instance.
        steps: Vec<Step>,
    }
}

section! {
    /// One stream, or only time that goes by.
    pub struct Step {
        /// How much time goes by before.
        after: Option<Duration>,
        /// The connection.
        connection: Option<ConnectionFacts>,
        /// The route.
        route: Option<RouteInfo>,
        /// The request.
        request: Option<RequestFacts>,
        /// What the upstream answers.
        response: Option<ResponseFacts>,
        /// What comes on a connection, for network filters.
        data: Option<Vec<Direction>>,
        /// What is expected.
        expect: Option<Expect>,
    }
}

impl Case {
    /// The streams: those of `steps`, or the one that stands in the case itself.
    pub fn streams(&self) -> Vec<Step> {
        let own = Step {
            after: self.after,
            connection: self.connection.clone(),
            route: self.route.clone(),
            request: self.request.clone(),
            response: self.response.clone(),
            data: self.data.clone(),
            expect: self.expect.clone(),
        };
        let is_stream = own.request.is_some() || own.data.is_some() || own.expect.is_some();
        if is_stream { vec![own] } else { self.steps.clone() }
    }
}

/// A filter's section, in which `plugin` may be left out: it is the plugin that is tested.
#[derive(Debug, Clone, PartialEq)]
pub struct Use(pub Box<Filter>);

/// What the tested plugin is called, where nothing says otherwise.
const PLUGIN: &str = "plugin";

impl Read for Use {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let mut entries = match &node.value {
            Value::Mapping(entries) => entries.clone(),
            Value::Scalar { text, .. } if text.is_empty() => Vec::new(),
            Value::Scalar { .. } | Value::Sequence(_) => {
                cx.problem(node.at, format!("a mapping is expected here, not {}", node.kind()));
                return None;
            }
        };
        if node.get("plugin").is_none() {
            let value = Value::Scalar { text: PLUGIN.to_owned(), plain: false };
            let (key, key_at) = ("plugin".to_owned(), node.at);
            entries.push(Entry { key, key_at, value: Node { at: node.at, value } });
        }
        let whole = Node { at: node.at, value: Value::Mapping(entries) };
        Filter::read(&whole, cx).map(|filter| Self(Box::new(filter)))
    }

    fn schema(definitions: &mut Definitions) -> Json {
        // As of a filter, but for the one field that need not be there.
        Filter::schema(definitions);
        let mut schema = definitions.get("Filter").cloned().unwrap_or_default();
        if let Some(fields) = schema.as_object_mut() {
            fields.insert("required".to_owned(), Json::Array(Vec::new()));
        }
        schema
    }

    fn to_json(&self) -> Json {
        self.0.to_json()
    }
}

/// A filter that stands beside the tested one in the chain, and the `.wasm` file that it is of.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbour {
    /// The file.
    pub plugin: PathBuf,
    /// The filter, which has the file's name.
    pub filter: Use,
}

impl Read for Neighbour {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let Some(Value::Scalar { text, .. }) = node.get("plugin").map(|plugin| &plugin.value) else {
            cx.problem(node.at, "a filter beside the tested one names its plugin: `plugin: FILE.wasm`");
            return None;
        };
        let plugin = cx.resolve(text);
        let mut named = node.clone();
        if let Value::Mapping(entries) = &mut named.value
            && let Some(entry) = entries.iter_mut().find(|entry| entry.key == "plugin")
        {
            let name = plugin.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            entry.value.value = Value::Scalar { text: name, plain: false };
        }
        Use::read(&named, cx).map(|filter| Self { plugin, filter })
    }

    fn schema(definitions: &mut Definitions) -> Json {
        Filter::schema(definitions)
    }

    fn to_json(&self) -> Json {
        self.filter.to_json()
    }
}

impl CaseFile {
    /// The files of the plugins beside the tested one.
    pub fn neighbours(&self) -> impl Iterator<Item = &Path> {
        let of_cases = self.cases.iter().flat_map(|case| case.before.iter().chain(&case.behind).flatten());
        self.before.iter().chain(&self.behind).chain(of_cases).map(|neighbour| neighbour.plugin.as_path())
    }

    /// Reads a file of cases.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(file: &Path) -> Result<(Self, String), Problems> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| whole(file, format!("it cannot be read: {error}")))?;
        Self::parse(&text, file).map(|cases| (cases, text))
    }

    /// Reads the text of a file of cases.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Problems> {
        let node = Node::parse(text).map_err(|(at, message)| {
            Problems(vec![Problem { file: file.to_owned(), at, field: String::new(), message }])
        })?;
        let mut cx = Context::new(file);
        let read = Self::read(&node, &mut cx);
        if let Some(cases) = &read {
            cases.check(&mut cx);
        }
        let problems = cx.finish();
        match read {
            Some(cases) => problems.or(cases),
            None => Err(problems),
        }
    }

    fn check(&self, cx: &mut Context<'_>) {
        let mut names: BTreeMap<&str, Mark> = BTreeMap::new();
        for case in &self.cases {
            if let Some(first) = names.insert(&case.name, case.name.place.at) {
                let message = format!("line {} has this name already; give each case its own", first.line);
                cx.problem_at(&case.name.place, message);
            }
            let inline = case.request.is_some() || case.data.is_some() || case.expect.is_some();
            if inline && !case.steps.is_empty() {
                cx.problem_at(
                    &case.place,
                    "a case has either one stream of its own, or `steps`; move the one into the other",
                );
            }
            if !inline && case.steps.is_empty() && case.refused.is_none() {
                cx.problem_at(
                    &case.place,
                    "the case does nothing; add `request`, `data`, `steps` or `refused`",
                );
            }
            for step in case.steps.iter().chain(&case.streams()) {
                if step.request.is_some() && step.data.is_some() {
                    cx.problem_at(
                        &case.place,
                        "a stream has either a `request` or, for network filters, `data`",
                    );
                }
            }
        }
    }

    /// The JSON Schema of such files.
    pub fn json_schema() -> Json {
        let mut definitions = Definitions::new();
        let root = Self::schema(&mut definitions);
        let mut schema = serde_json::json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": definitions });
        if let (Some(fields), Json::Object(root)) = (schema.as_object_mut(), root) {
            fields.extend(root);
        }
        schema
    }
}

fn whole(file: &Path, message: String) -> Problems {
    Problems(vec![Problem {
        file: file.to_owned(),
        at: Mark { line: 1, column: 1 },
        field: String::new(),
        message,
    }])
}
