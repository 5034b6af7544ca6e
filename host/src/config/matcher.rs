//! `match`: which requests a route is for.

use std::collections::BTreeMap;

use http::{HeaderName, Method};
use regex::Regex;
use serde_json::{Value as Json, json};

use crate::config::problem::Mark;
use crate::config::section::{Context, Definitions, Read, section, text};
use crate::config::yaml::{Node, Value};

section! {
    /// Which requests. All that is set must hold.
    pub struct Match {
        /// The host, without port: exact, or `*.suffix` for every name below one.
        host: Option<HostPattern>,
        /// The whole path, without query.
        path: Option<String>,
        /// The beginning of the path.
        path_prefix: Option<String>,
        /// A regular expression for the whole path.
        path_regex: Option<Pattern>,
        /// Methods.
        methods: Vec<MethodName>,
        /// Headers, by name: the exact value, or one of `exact`, `prefix`, `regex`, `present`.
        headers: BTreeMap<String, HeaderMatch>,
    }
}

/// How a route tells paths apart.
#[derive(Debug, Clone, PartialEq)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Its beginning. The empty prefix is every path.
    Prefix(String),
    /// A regular expression for all of it.
    Regex(Pattern),
}

/// How the match tells paths apart. `None` after a problem was reported.
pub fn path_match(matcher: &Match, node: &Node, cx: &mut Context<'_>) -> Option<PathMatch> {
    let at = node.get("match").map_or(node.at, |node| node.at);
    let path = match (&matcher.path, &matcher.path_prefix, &matcher.path_regex) {
        (None, None, None) => PathMatch::Prefix(String::new()),
        (Some(path), None, None) => PathMatch::Exact(path.clone()),
        (None, Some(prefix), None) => PathMatch::Prefix(prefix.clone()),
        (None, None, Some(regex)) => PathMatch::Regex(regex.clone()),
        _ => {
            cx.problem(at, "`path`, `path_prefix` and `path_regex` exclude each other; keep one");
            return None;
        }
    };
    match &path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) if !path.is_empty() && !path.starts_with('/') => {
            cx.problem(at, format!("the path `{path}` can match nothing; begin it with `/`"));
            None
        }
        PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::Regex(_) => Some(path),
    }
}

/// The headers that the match asks for. `None` after a problem was reported.
pub fn header_matches(
    matcher: &Match,
    node: &Node,
    cx: &mut Context<'_>,
) -> Option<Vec<(HeaderName, HeaderMatch)>> {
    let at = node.get("match").and_then(|node| node.get("headers")).map_or(node.at, |node| node.at);
    let headers: Vec<Option<_>> =
        matcher.headers.iter().map(|(name, rule)| Some((header_name(name, at, cx)?, rule.clone()))).collect();
    headers.into_iter().collect()
}

/// A header name. `None` after a problem was reported.
pub fn header_name(name: &str, at: Mark, cx: &mut Context<'_>) -> Option<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).ok().or_else(|| {
        cx.problem_in("headers", at, format!("`{name}` is not a header name; write letters, digits and `-`"));
        None
    })
}

/// Which hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// This one.
    Exact(String),
    /// Every name that ends with this, which begins with a dot.
    Suffix(String),
    /// All.
    Any,
}

/// Whether a request can name such a host: a name, or an address in brackets if it is one with colons.
pub fn is_host(host: &str) -> bool {
    http::uri::Authority::try_from(host)
        .is_ok_and(|authority| authority.host() == host && !host.contains('*'))
}

impl Read for HostPattern {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let word = text(node, cx)?.to_ascii_lowercase();
        let pattern = match word.strip_prefix('*') {
            Some("") => Some(Self::Any),
            Some(suffix) if suffix.strip_prefix('.').is_some_and(is_host) => {
                Some(Self::Suffix(suffix.to_owned()))
            }
            Some(_) => None,
            // As requests name it: the root label says nothing that was not clear.
            None => Some(word.strip_suffix('.').unwrap_or(&word))
                .filter(|host| is_host(host))
                .map(|host| Self::Exact(host.to_owned())),
        };
        if pattern.is_none() {
            let cure = "write a name without port (`api.example.com`, other scripts as `xn--...`), \
                        `*.example.com` or `*`";
            cx.problem(node.at, format!("`{word}` is not a host; {cure}"));
        }
        pattern
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({ "type": "string" })
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Exact(host) => host.as_str().into(),
            Self::Suffix(suffix) => format!("*{suffix}").into(),
            Self::Any => "*".into(),
        }
    }
}

/// A regular expression that must match all of a text.
#[derive(Debug, Clone)]
pub struct Pattern(pub Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Read for Pattern {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let word = text(node, cx)?;
        match Regex::new(&format!("^(?:{word})$")) {
            Ok(regex) => Some(Self(regex)),
            Err(error) => {
                let error = error.to_string();
                let reason = error.lines().last().unwrap_or("").trim_start_matches("error: ");
                cx.problem(node.at, format!("`{word}` is not a regular expression: {reason}"));
                None
            }
        }
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({ "type": "string", "format": "regex" })
    }

    fn to_json(&self) -> Json {
        // Without the anchors that were put around it.
        let text = self.0.as_str();
        text.strip_prefix("^(?:").and_then(|text| text.strip_suffix(")$")).unwrap_or(text).into()
    }
}

/// What a header must look like.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderMatch {
    /// One of its values is this.
    Exact(String),
    /// One of its values begins with this.
    Prefix(String),
    /// One of its values matches.
    Regex(Pattern),
    /// It is there, or it is not.
    Present(bool),
}

section! {
    /// What a header must look like: exactly one of the fields.
    pub struct HeaderMatchSection {
        /// The value.
        exact: Option<String>,
        /// The beginning of the value.
        prefix: Option<String>,
        /// A regular expression for the whole value.
        regex: Option<Pattern>,
        /// Whether the header is there.
        present: Option<bool>,
    }
}

impl Read for HeaderMatch {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        if let Value::Scalar { text, .. } = &node.value {
            return Some(Self::Exact(text.clone()));
        }
        match HeaderMatchSection::read(node, cx)? {
            HeaderMatchSection { exact: Some(text), prefix: None, regex: None, present: None } => {
                Some(Self::Exact(text))
            }
            HeaderMatchSection { exact: None, prefix: Some(text), regex: None, present: None } => {
                Some(Self::Prefix(text))
            }
            HeaderMatchSection { exact: None, prefix: None, regex: Some(regex), present: None } => {
                Some(Self::Regex(regex))
            }
            HeaderMatchSection { exact: None, prefix: None, regex: None, present: Some(present) } => {
                Some(Self::Present(present))
            }
            _ => {
                cx.problem(node.at, "exactly one of `exact`, `prefix`, `regex` and `present` is needed");
                None
            }
        }
    }

    fn schema(definitions: &mut Definitions) -> Json {
        json!({ "oneOf": [{ "type": "string" }, HeaderMatchSection::schema(definitions)] })
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Exact(value) => value.as_str().into(),
            Self::Prefix(prefix) => json!({ "prefix": prefix }),
            Self::Regex(pattern) => json!({ "regex": pattern.to_json() }),
            Self::Present(present) => json!({ "present": present }),
        }
    }
}

/// A method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodName(pub Method);

impl Read for MethodName {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let word = text(node, cx)?;
        Method::from_bytes(word.as_bytes()).ok().map(Self).or_else(|| {
            cx.problem(node.at, format!("`{word}` is not a method; write one such as `GET`"));
            None
        })
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({ "type": "string" })
    }

    fn to_json(&self) -> Json {
        self.0.as_str().into()
    }
}
