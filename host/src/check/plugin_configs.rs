//! The configurations of filters against the schemas that their plugins hold, each slip with its own line.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::config::problem::Problem;
use crate::config::yaml::{Node, Value};
use crate::plugin::library::Loaded;
use crate::plugin::schema::{Mismatch, Schema};

/// Everything in the configurations of filters that does not fit.
pub fn problems(config: &Config, plugins: &BTreeMap<String, Loaded>) -> Vec<Problem> {
    // It was read a moment ago; if it cannot be any more, whoever runs it will say so.
    let Ok(text) = std::fs::read_to_string(&config.file) else { return Vec::new() };
    let Ok(root) = Node::parse(&text) else { return Vec::new() };
    let schemas: BTreeMap<&str, Schema> = plugins
        .iter()
        .filter_map(|(name, loaded)| Some((name.as_str(), Schema::of(&loaded.bytes)?)))
        .collect();
    let mut problems = Vec::new();
    for place in places(&root) {
        let Some(schema) = schemas.get(place.plugin.as_str()) else { continue };
        let null = Node { at: place.config.at, value: Value::Scalar { text: String::new(), plain: true } };
        if place.is_absent && schema.mismatches(&null).is_empty() {
            continue;
        }
        let problem = |Mismatch { at, field, message }: Mismatch| Problem {
            file: config.file.clone(),
            at,
            field: format!("{}{field}", place.field),
            message: format!("plugin `{}`: {message}", place.plugin),
        };
        problems.extend(schema.mismatches(&place.config).into_iter().map(problem));
    }
    problems
}

/// A configuration of a filter as it stands in the file.
struct Placed {
    plugin: String,
    field: String,
    config: Node,
    /// None is there: it stands for an empty one, or for nothing, whichever the plugin takes.
    is_absent: bool,
}

fn places(root: &Node) -> Vec<Placed> {
    let mut places = Vec::new();
    for (at, listener) in items(root.get("listeners")) {
        let listens = format!("listeners[{at}]");
        let mut named = filters(listener.get("filters"), &format!("{listens}.filters"), &mut places);
        let Some(http) = listener.get("http") else { continue };
        named.extend(filters(http.get("filters"), &format!("{listens}.http.filters"), &mut places));
        for (at, route) in items(http.get("routes")) {
            let Some(Node { value: Value::Mapping(overrides), .. }) = route.get("filters") else { continue };
            for entry in overrides {
                let field = format!("{listens}.http.routes[{at}].filters.{}.config", entry.key);
                if let (Some(plugin), Some(config)) = (named.get(&entry.key), entry.value.get("config")) {
                    add(plugin, field, config, &mut places);
                }
            }
        }
    }
    places
}

/// Adds the configurations of a chain; the plugins of its filters, by the filters' names.
fn filters(chain: Option<&Node>, field: &str, places: &mut Vec<Placed>) -> BTreeMap<String, String> {
    let mut named = BTreeMap::new();
    for (at, filter) in items(chain) {
        let text = |key| match filter.get(key) {
            Some(Node { value: Value::Scalar { text, .. }, .. }) => Some(text.clone()),
            Some(_) | None => None,
        };
        let Some(plugin) = text("plugin") else { continue };
        named.insert(text("name").unwrap_or_else(|| plugin.clone()), plugin.clone());
        let field = format!("{field}[{at}].config");
        match filter.get("config").filter(|config| !config.is_null()) {
            Some(config) => add(&plugin, field, config, places),
            None => {
                let config = Node { at: filter.at, value: Value::Mapping(Vec::new()) };
                places.push(Placed { plugin, field, config, is_absent: true });
            }
        }
    }
    named
}

fn add(plugin: &str, field: String, config: &Node, places: &mut Vec<Placed>) {
    // A text reaches the plugin as it stands, and is nobody else's to read.
    if let Value::Scalar { .. } = config.value {
        return;
    }
    let (plugin, config) = (plugin.to_owned(), config.clone());
    places.push(Placed { plugin, field, config, is_absent: false });
}

fn items(list: Option<&Node>) -> impl Iterator<Item = (usize, &Node)> {
    let items = match list {
        Some(Node { value: Value::Sequence(items), .. }) => items.as_slice(),
        Some(_) | None => &[],
    };
    items.iter().enumerate()
}

/// Whether a filter that did not start, which is told of at `field`, is one whose configuration is known not to fit: then
/// that is why.
pub fn explain(problems: &[Problem], field: &str) -> bool {
    let filter = field.strip_suffix(".plugin").or_else(|| field.strip_suffix(".config")).unwrap_or(field);
    let config = format!("{filter}.config");
    problems.iter().any(|problem| problem.field.starts_with(&config))
}
