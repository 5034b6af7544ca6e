//! `routes`: which requests go where.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value as Json, json};

use crate::config::matcher::{
    HeaderMatch, HostPattern, Match, MethodName, PathMatch, header_matches, header_name, is_host, path_match,
};
use crate::config::metadata::Metadata;
use crate::config::section::{Context, Definitions, Read, choice, section};
use crate::config::value::Spanned;
use crate::config::yaml::{Node, Value};

section! {
    /// A rule: which requests, and what becomes of them.
    pub struct RouteSection {
        /// Its name, in logs, metrics and the property `route_name`.
        name: Option<String>,
        /// Which requests. Without it, all.
        matcher as "match": Match = "",
        /// Forwards to a cluster.
        cluster: Option<Spanned<String>>,
        /// Forwards to one of several clusters, by weight.
        clusters: Vec<WeightedCluster>,
        /// Answers with a redirect.
        redirect: Option<Redirect>,
        /// Answers by itself.
        respond: Option<Respond>,
        /// What replaces the matched prefix (or the whole matched path) before the request is forwarded.
        prefix_rewrite: Option<Spanned<String>>,
        /// How long the response may take, from the end of the request to the end of the response. `0s` is no limit.
        timeout: Duration = "15s",
        /// Filters of the listener, by name, that this route switches `off` or configures differently.
        filters: BTreeMap<String, Spanned<FilterOverride>>,
        /// Facts for plugins, in a mapping for each that they are for.
        metadata: Metadata,
    }
}

section! {
    /// A cluster and its share.
    pub struct WeightedCluster {
        /// The cluster.
        name: Spanned<String>,
        /// Its share: its weight over the sum of all.
        weight: u32,
    }
}

choice! {
    /// The scheme of a redirect.
    pub enum RedirectScheme {
        /// In the clear.
        Http = "http",
        /// Through TLS.
        Https = "https",
    }
}

section! {
    /// A redirect. What is not set is taken from the request.
    pub struct Redirect {
        /// `https` or `http`.
        scheme: Option<RedirectScheme>,
        /// The host.
        host: Option<String>,
        /// The port.
        port: Option<u16>,
        /// The path. Without it the request's path and query are kept.
        path: Option<String>,
        /// 301, 302, 303, 307 or 308.
        status: RedirectStatus = "301",
    }
}

section! {
    /// A fixed answer.
    pub struct Respond {
        /// Its status.
        status: ResponseStatus,
        /// Its body.
        body: String = "",
        /// Its headers.
        headers: BTreeMap<String, String>,
    }
}

/// A route whose parts fit together.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Its name.
    pub name: Option<String>,
    /// The host it is for.
    pub host: Option<HostPattern>,
    /// The path it is for.
    pub path: PathMatch,
    /// The methods it is for; empty for all.
    pub methods: Vec<Method>,
    /// The headers it asks for.
    pub headers: Vec<(HeaderName, HeaderMatch)>,
    /// What becomes of the request.
    pub action: Action,
    /// How long the response may take; `None` for ever.
    pub timeout: Option<Duration>,
    /// What it changes about filters.
    pub filters: BTreeMap<String, Spanned<FilterOverride>>,
    /// The section as it was written.
    pub written: RouteSection,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// It is forwarded to one of these, by weight.
    Forward {
        /// The clusters; never empty.
        clusters: Vec<WeightedCluster>,
        /// What replaces the matched prefix.
        prefix_rewrite: Option<String>,
    },
    /// It is redirected.
    Redirect(Redirect),
    /// It is answered.
    Respond {
        /// The status.
        status: StatusCode,
        /// The body.
        body: String,
        /// The headers.
        headers: Vec<(HeaderName, HeaderValue)>,
    },
}

impl Read for Route {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let section = RouteSection::read(node, cx)?;
        let path = cx.below("match", |cx| path_match(&section.matcher, node, cx));
        let headers = cx.below("match", |cx| header_matches(&section.matcher, node, cx));
        let rewrites_regex = matches!(path, Some(PathMatch::Regex(_)));
        if let (true, Some(rewrite)) = (rewrites_regex, &section.prefix_rewrite) {
            let message = "a `path_regex` has no prefix to rewrite; use `path_prefix` or `path`";
            cx.problem_at(&rewrite.place, message);
            return None;
        }
        let action = action(&section, node, cx);
        let (path, headers, action) = (path?, headers?, action?);
        Some(Self {
            name: section.name.clone(),
            host: section.matcher.host.clone(),
            path,
            methods: section.matcher.methods.iter().map(|MethodName(method)| method.clone()).collect(),
            headers,
            action,
            timeout: Some(section.timeout).filter(|timeout| !timeout.is_zero()),
            filters: section.filters.clone(),
            written: section,
        })
    }

    fn schema(definitions: &mut Definitions) -> Json {
        RouteSection::schema(definitions)
    }

    fn to_json(&self) -> Json {
        self.written.to_json()
    }
}

fn action(section: &RouteSection, node: &Node, cx: &mut Context<'_>) -> Option<Action> {
    let forwards = match (&section.cluster, section.clusters.as_slice()) {
        (None, []) => None,
        (Some(cluster), []) => Some(vec![WeightedCluster { name: cluster.clone(), weight: 1 }]),
        (None, clusters) => Some(clusters.to_vec()),
        (Some(_), [_, ..]) => {
            cx.problem(node.at, "`cluster` and `clusters` exclude each other; keep one");
            return None;
        }
    };
    match (forwards, &section.redirect, &section.respond) {
        (Some(clusters), None, None) => {
            if clusters.iter().all(|cluster| cluster.weight == 0) {
                cx.problem_in("clusters", node.at, "every weight is 0; give at least one cluster a share");
                return None;
            }
            let prefix_rewrite = section.prefix_rewrite.as_ref().map(|rewrite| rewrite.value.clone());
            Some(Action::Forward { clusters, prefix_rewrite })
        }
        (None, Some(redirect), None) => {
            cx.below("redirect", |cx| check_redirect(redirect, node, cx));
            Some(Action::Redirect(redirect.clone()))
        }
        (None, None, Some(respond)) => cx.below("respond", |cx| {
            let headers: Vec<Option<_>> = respond
                .headers
                .iter()
                .map(|(name, value)| {
                    let name = header_name(name, node.at, cx)?;
                    let parsed = HeaderValue::from_str(value).ok();
                    if parsed.is_none() {
                        cx.problem_in(
                            "headers",
                            node.at,
                            format!("`{value}` is not a header value; it may hold no control characters"),
                        );
                    }
                    Some((name, parsed?))
                })
                .collect();
            let headers = headers.into_iter().collect::<Option<_>>()?;
            if !respond.body.is_empty() && matches!(respond.status.0.as_u16(), 204 | 304) {
                let status = respond.status.0.as_u16();
                cx.problem_in(
                    "respond",
                    node.at,
                    format!("a response with status {status} has no body; remove it"),
                );
            }
            Some(Action::Respond { status: respond.status.0, body: respond.body.clone(), headers })
        }),
        (None, None, None) => {
            let cure = "add one of `cluster`, `clusters`, `redirect`, `respond`";
            cx.problem(node.at, format!("nothing says what becomes of the request; {cure}"));
            None
        }
        _ => {
            let message = "`cluster`, `clusters`, `redirect` and `respond` exclude each other; keep one";
            cx.problem(node.at, message);
            None
        }
    }
}

/// Reports what no client could follow.
fn check_redirect(redirect: &Redirect, node: &Node, cx: &mut Context<'_>) {
    if let Some(host) = redirect.host.as_ref().filter(|host| !is_host(host)) {
        let message = format!("`{host}` is not a host; write a name without port (`www.example.com`)");
        cx.problem_in("host", node.at, message);
    }
    if redirect.port == Some(0) {
        cx.problem_in("port", node.at, "0 is not a port; write 1 to 65535");
    }
    let sound = |path: &str| path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    if let Some(path) = redirect.path.as_ref().filter(|path| !sound(path)) {
        let cure = "begin it with `/`, and percent-encode what is not visible ASCII";
        cx.problem_in("path", node.at, format!("`{path}` is not a path; {cure}"));
    }
}

/// What a route changes about a filter.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterOverride {
    /// The filter is not run.
    Off,
    /// The filter runs with this configuration.
    Config(Json),
}

section! {
    /// Another configuration for a filter.
    pub struct FilterConfig {
        /// The configuration.
        config: Spanned<Json>,
    }
}

impl Read for FilterOverride {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        match &node.value {
            // Some writers of YAML and JSON turn a bare `off` into a boolean.
            Value::Scalar { text, .. } if matches!(text.as_str(), "off" | "Off" | "OFF" | "false") => {
                Some(Self::Off)
            }
            Value::Scalar { text, .. } => {
                cx.problem(
                    node.at,
                    format!("`{text}` is not possible here; write `off` or `{{ config: ... }}`"),
                );
                None
            }
            Value::Sequence(_) | Value::Mapping(_) => {
                FilterConfig::read(node, cx).map(|section| Self::Config(section.config.value))
            }
        }
    }

    fn schema(definitions: &mut Definitions) -> Json {
        json!({ "oneOf": [{ "enum": ["off", false] }, FilterConfig::schema(definitions)] })
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Off => "off".into(),
            Self::Config(config) => json!({ "config": config.to_json() }),
        }
    }
}

/// The status of a fixed answer: 200 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseStatus(pub StatusCode);

impl Read for ResponseStatus {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let code = u16::read(node, cx)?;
        let status = StatusCode::from_u16(code).ok().filter(|_| (200..600).contains(&code)).map(Self);
        if status.is_none() {
            cx.problem(node.at, format!("{code} is not a status of an answer; write 200 to 599"));
        }
        status
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({ "type": "integer", "minimum": 200, "maximum": 599 })
    }

    fn to_json(&self) -> Json {
        self.0.as_u16().into()
    }
}

/// The status of a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedirectStatus(pub StatusCode);

impl Read for RedirectStatus {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let code = u16::read(node, cx)?;
        let redirects = matches!(code, 301 | 302 | 303 | 307 | 308);
        let status = StatusCode::from_u16(code).ok().filter(|_| redirects).map(Self);
        if status.is_none() {
            cx.problem(node.at, format!("{code} does not redirect; write 301, 302, 303, 307 or 308"));
        }
        status
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({ "enum": [301, 302, 303, 307, 308] })
    }

    fn to_json(&self) -> Json {
        self.0.as_u16().into()
    }
}
