//! Limits: what they are for, by what they tell requests apart, how much they allow.

use filter_parts::duration::Span;
use filter_parts::text::{is_plain, is_token};
use serde::Deserialize;
use weir_sdk::schema::Schema;
use weir_sdk::{Error, Result};

use crate::bucket::Rate;

/// A limit as it is written.
#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitConfig {
    /// What it is called.
    name: Option<String>,
    /// The properties that tell requests apart. Without any, all requests are alike.
    #[serde(default)]
    by: Vec<String>,
    /// How many requests there may be...
    requests: u64,
    /// ... in this time.
    per: Span,
    /// How many there may be at once; as many as `requests`, when it is left out.
    burst: Option<u64>,
    /// The methods that it is for.
    #[serde(default)]
    methods: Vec<String>,
    /// The beginning of the paths that it is for.
    path_prefix: Option<String>,
}

/// A limit.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) name: String,
    pub(crate) by: Vec<By>,
    pub(crate) rate: Rate,
    methods: Vec<String>,
    path_prefix: Option<String>,
}

/// By what requests are told apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// By the address of the client, without its port.
    Client,
    /// By a property.
    Property(Vec<String>),
}

impl By {
    fn parse(text: &str) -> Option<Self> {
        match text {
            // Each connection has a port of its own, by which nobody wants to limit.
            "client.address" | "source.address" => Some(Self::Client),
            _ => {
                let path: Vec<String> = text.split('.').map(str::to_owned).collect();
                let good = path.iter().all(|part| !part.is_empty() && !part.contains('\0'));
                good.then_some(Self::Property(path))
            }
        }
    }
}

impl LimitConfig {
    /// The limit at a place in the list.
    pub(crate) fn compile(self, at: usize) -> Result<Limit> {
        let name = self.name.unwrap_or_else(|| format!("limits[{at}]"));
        let error = |why: String| Error::new(format!("{name}: {why}"));
        if name.is_empty() || !is_plain(&name) {
            return Err(error("this name cannot stand in a log line; use plain ASCII".to_owned()));
        }
        let by = self.by.iter().map(|text| {
            By::parse(text)
                .ok_or_else(|| error(format!("`by`: `{text}` is not a property; `source.address` is one")))
        });
        let by = by.collect::<Result<_>>()?;
        if let Some(method) = self.methods.iter().find(|method| !is_token(method)) {
            return Err(error(format!("`methods`: `{method}` is not a method")));
        }
        let burst = self.burst.unwrap_or(self.requests);
        let rate = Rate::new(self.requests, self.per.0, burst).ok_or_else(|| {
            error(format!(
                "{} in {:?} with a burst of {burst} is no rate; each is more than 0, there is at most one a \
                 nanosecond, and a bucket is full within a year",
                self.requests, self.per.0
            ))
        })?;
        Ok(Limit { by, rate, methods: self.methods, path_prefix: self.path_prefix, name })
    }
}

impl Limit {
    pub(crate) fn asks_for_method(&self) -> bool {
        !self.methods.is_empty()
    }

    pub(crate) fn asks_for_path(&self) -> bool {
        self.path_prefix.is_some()
    }

    /// Whether it is for a request with this method, and this path without query.
    pub(crate) fn is_for(&self, method: &str, path: &str) -> bool {
        let method = self.methods.is_empty() || self.methods.iter().any(|known| known == method);
        method && self.path_prefix.as_ref().is_none_or(|prefix| path.starts_with(prefix.as_str()))
    }
}
