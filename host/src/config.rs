//! The configuration: text -> tree -> sections -> one checked [`Config`], or every problem at once.
//!
//! What can be told from the file alone is told here. Certificates, plugins and ports are looked at where they
//! are loaded; their problems carry places of this file too.

pub mod admin;
pub mod cluster;
pub mod file;
pub mod filter;
pub mod grants;
pub mod limits;
pub mod listener;
pub mod matcher;
pub mod metadata;
pub mod overload;
pub mod problem;
pub mod route;
pub mod section;
pub mod tls;
pub mod value;
pub mod yaml;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::config::admin::{Admin, Runtime};
use crate::config::cluster::{Cluster, Endpoint};
use crate::config::filter::{Filter, Isolation, Plugins, Scheduling};
use crate::config::listener::{Http, Listener, Service};
use crate::config::metadata::Node as Identity;
use crate::config::overload::Overload;
use crate::config::problem::{Mark, Place, Problem, Problems, suggest};
use crate::config::route::Action;
use crate::config::section::{Context, Definitions, Read, section};
use crate::config::tls::ClusterTls;
use crate::config::value::{IpNet, Spanned};
use crate::config::yaml::{Node, Value};

section! {
    /// The configuration of Weir. Every section is optional.
    pub struct Sections {
        /// The admin API.
        admin: Option<Admin>,
        /// The process.
        runtime: Runtime = "",
        /// Who this Weir is, for plugins.
        node: Identity = "",
        /// Where plugins come from.
        plugins: Option<Plugins>,
        /// Where traffic comes from.
        listeners: Vec<Listener>,
        /// Where traffic goes.
        clusters: Vec<Cluster>,
        /// What the process may use, and from where on it sheds load.
        overload: Overload = "",
        /// How long a drain waits for what is still running.
        drain_timeout: Duration = "5s",
        /// Where the access log goes: `stdout`, `off`, or the path of a file.
        access_log: Spanned<AccessLogTarget> = "off",
        /// The proxies in front of Weir whose `x-forwarded-*` headers are believed. The client is the last address in their
        /// `x-forwarded-for` that is not of such a proxy.
        trusted_proxies: Vec<IpNet>,
    }
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// The end of a file.
    File(PathBuf),
}

impl Read for AccessLogTarget {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        Some(match section::text(node, cx)? {
            // Some writers of YAML and JSON turn a bare `off` into a boolean.
            "off" | "false" => Self::Off,
            "stdout" => Self::Stdout,
            path => Self::File(cx.resolve(path)),
        })
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({ "type": ["string", "boolean"] })
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Off => "off".into(),
            Self::Stdout => "stdout".into(),
            Self::File(path) => path.to_json(),
        }
    }
}

/// A configuration that is right as far as the file alone can tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file that it was read from.
    pub file: PathBuf,
    /// Its sections.
    pub sections: Sections,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// Every problem that the file has.
    pub fn load(file: &Path) -> Result<Self, Problems> {
        whole(Self::examine(file))
    }

    /// Takes what somebody has read from `file`.
    ///
    /// # Errors
    /// Every problem that it has.
    pub fn take(file: &Path, read: io::Result<String>) -> Result<Self, Problems> {
        whole(Self::examine_read(file, read))
    }

    /// Reads a text that came from `file`.
    ///
    /// # Errors
    /// Every problem that the text has.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Problems> {
        whole(Self::examine_text(file, text))
    }

    /// Reads a file, and tells what can be made of it whatever is wrong with it: a check goes on with what is
    /// left, so that it can tell of everything at once. With problems it must not be used for anything else.
    pub fn examine(file: &Path) -> (Option<Self>, Problems) {
        Self::examine_read(file, std::fs::read_to_string(file))
    }

    fn examine_read(file: &Path, read: io::Result<String>) -> (Option<Self>, Problems) {
        match read {
            Ok(text) => Self::examine_text(file, &text),
            Err(error) => {
                let message = format!("cannot be read: {error}; give the path of a configuration file");
                (None, problem(file, Mark { line: 1, column: 1 }, message))
            }
        }
    }

    fn examine_text(file: &Path, text: &str) -> (Option<Self>, Problems) {
        let root = match Node::parse(text) {
            Ok(root) => root,
            Err((at, message)) => return (None, problem(file, at, message)),
        };
        let mut cx = Context::new(file);
        let sections = Sections::read(&root, &mut cx);
        if let Some(sections) = &sections {
            check(&root, sections, &mut cx);
        }
        (sections.map(|sections| Self { file: file.to_owned(), sections }), cx.finish())
    }

    /// A problem with something that the file names.
    pub fn problem(&self, place: &Place, message: impl Into<String>) -> Problem {
        place.problem(&self.file, message)
    }
}

/// What was read, when nothing is wrong with it.
fn whole((config, problems): (Option<Config>, Problems)) -> Result<Config, Problems> {
    match config {
        Some(config) => problems.or(config),
        None => Err(problems),
    }
}

fn problem(file: &Path, at: Mark, message: String) -> Problems {
    Problems(vec![Problem { file: file.to_owned(), at, field: String::new(), message }])
}

/// The JSON Schema of the configuration (2020-12).
pub fn schema() -> Json {
    let mut definitions = Definitions::new();
    Sections::schema(&mut definitions);
    let mut root = definitions.remove("Sections").unwrap_or_default();
    if let Json::Object(fields) = &mut root {
        fields.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
        fields.insert("title".to_owned(), "Weir".into());
        fields.insert("$defs".to_owned(), definitions.into());
    }
    root
}

/// What no section can tell alone: names that are there twice, or not at all.
fn check(root: &Node, sections: &Sections, cx: &mut Context<'_>) {
    // Names come from the tree: a section that could not be read is still there.
    let clusters = names(root, "clusters");
    unique("clusters", "cluster", &clusters, cx);
    unique("listeners", "listener", &names(root, "listeners"), cx);
    let clusters: Vec<&str> = clusters.iter().map(|(name, _, _)| name.as_str()).collect();
    for cluster in &sections.clusters {
        check_names(cluster, cx);
    }
    let has_plugins = root.get("plugins").is_some();
    let mut addresses: HashMap<SocketAddr, &str> = HashMap::new();
    for listener in &sections.listeners {
        let address = &listener.address;
        if let (true, Some(other)) = (address.port() != 0, addresses.insert(address.value, &listener.name)) {
            let message =
                format!("{} is the address of listener `{other}` too; give each its own", address.value);
            cx.problem_at(&address.place, message);
        }
        check_filters(&listener.filters, has_plugins, &clusters, cx);
        match &listener.service {
            Service::Tcp { cluster } => {
                cluster.iter().for_each(|cluster| check_cluster(cluster, &clusters, cx))
            }
            Service::Http(http) => {
                if usize::from(http.limits.max_headers) > MOST_HEADERS {
                    let message = format!(
                        "`max_headers` of its `http` is above {MOST_HEADERS}, the most that can be; lower it"
                    );
                    cx.problem_at(&listener.name.place, message);
                }
                if http.limits.max_concurrent_streams > MOST_STREAMS {
                    let message = format!(
                        "`max_concurrent_streams` of its `http` is above {MOST_STREAMS}, the most that one connection can have; lower it"
                    );
                    cx.problem_at(&listener.name.place, message);
                }
                check_filters(&http.filters, has_plugins, &clusters, cx);
                check_routes(http, &clusters, cx);
            }
        }
    }
}

fn check_routes(http: &Http, clusters: &[&str], cx: &mut Context<'_>) {
    let filters: Vec<&str> = http.filters.iter().map(|filter| filter.name().as_str()).collect();
    for route in &http.routes {
        if let Action::Forward { clusters: targets, .. } = &route.action {
            targets.iter().for_each(|target| check_cluster(&target.name, clusters, cx));
        }
        for (name, change) in &route.filters {
            if !filters.contains(&name.as_str()) {
                let hint = suggest(name, filters.iter().copied());
                cx.problem_at(&change.place, format!("the listener has no filter `{name}`{hint}"));
            }
        }
    }
}

/// Header fields that one request may have.
const MOST_HEADERS: usize = 256;

/// Streams that one HTTP/2 connection may have: whose answers are not on their way is known of no more.
pub const MOST_STREAMS: u32 = 4096;

/// Filters in one chain: what a stream remembers of each is a bit of a word.
const MOST_FILTERS: usize = 64;

fn check_filters(filters: &[Filter], has_plugins: bool, clusters: &[&str], cx: &mut Context<'_>) {
    if let Some(filter) = filters.get(MOST_FILTERS) {
        let message = format!("a chain may have {MOST_FILTERS} filters at most; put what they do into fewer");
        cx.problem_at(&filter.plugin.place, message);
    }
    let mut seen: HashMap<&str, Mark> = HashMap::new();
    for filter in filters {
        filter.grants.clusters.iter().for_each(|cluster| check_cluster(cluster, clusters, cx));
        let name = filter.name();
        if let Some(first) = seen.insert(name, name.place.at) {
            let cure = "give one of them a `name` of its own";
            let message =
                format!("a second filter `{}` (the first: line {}); {cure}", name.value, first.line);
            cx.problem_at(&name.place, message);
        }
        if filter.isolation == Isolation::Stream && filter.scheduling == Some(Scheduling::Preemptible) {
            let message = "`isolation: stream` and `scheduling: preemptible` do not go together: a call that gives way \
                           holds an instance that others wait for; choose one of them";
            cx.problem_at(&filter.plugin.place, message);
        }
        if let (Some(instances), None | Some(Scheduling::Inline)) = (&filter.instances, filter.scheduling) {
            let message = "only filters with `scheduling: preemptible` have `instances`: the calls of others give way to \
                           nobody, and one instance on each worker is enough; add that, or remove this";
            cx.problem_at(&instances.place, message);
        }
        if !has_plugins {
            let cure = "add `plugins: { directory: ... }`";
            let message =
                format!("plugin `{}` cannot be found without a directory; {cure}", filter.plugin.value);
            cx.problem_at(&filter.plugin.place, message);
        }
    }
}

/// An endpoint's certificate is checked against one name.
fn check_names(cluster: &Cluster, cx: &mut Context<'_>) {
    let names: BTreeSet<&str> = cluster.endpoints.iter().filter_map(Endpoint::dns_name).collect();
    let told = |tls: &ClusterTls| tls.sni.is_some() || !tls.verify_identity.is_empty();
    if names.len() > 1 && cluster.tls.as_ref().is_some_and(|tls| !told(tls)) {
        let cure = "set `tls.sni` or `tls.verify_identity`, or make a cluster of each";
        let message = format!(
            "its endpoints have several names, and which is in their certificates is not said; {cure}"
        );
        cx.problem_at(&cluster.name.place, message);
    }
}

fn check_cluster(name: &Spanned<String>, known: &[&str], cx: &mut Context<'_>) {
    // An empty name stands in for one that could not be read.
    if !name.is_empty() && !known.contains(&name.as_str()) {
        let hint = match known {
            [] => "; add a `clusters` section".to_owned(),
            known => suggest(name, known.iter().copied()),
        };
        cx.problem_at(&name.place, format!("cluster `{}` is not defined{hint}", name.value));
    }
}

/// The names in a list of sections, with their places and their indices.
fn names(root: &Node, list: &str) -> Vec<(String, Mark, usize)> {
    let Some(Value::Sequence(items)) = root.get(list).map(|node| &node.value) else { return Vec::new() };
    let named = |(index, item): (usize, &Node)| match item.get("name") {
        Some(Node { at, value: Value::Scalar { text, .. } }) => Some((text.clone(), *at, index)),
        Some(_) | None => None,
    };
    items.iter().enumerate().filter_map(named).collect()
}

fn unique(list: &str, what: &str, names: &[(String, Mark, usize)], cx: &mut Context<'_>) {
    let mut seen: HashMap<&str, Mark> = HashMap::new();
    for (name, at, index) in names {
        if let Some(first) = seen.insert(name, *at) {
            let message = format!("a second {what} `{name}` (the first: line {}); rename one", first.line);
            cx.below(&format!("{list}[{index}]"), |cx| cx.problem_in("name", *at, message));
        }
    }
}

#[cfg(test)]
mod tests;
