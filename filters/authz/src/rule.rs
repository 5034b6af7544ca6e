//! Rules: whom they are for, what they ask of a request.

use std::collections::BTreeMap;

use filter_parts::caller::Caller;
use filter_parts::text::{name_fits, name_pattern};
use weir_sdk::prelude::*;

/// A rule as it is written. All that is set must fit.
#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleConfig {
    /// How the decision is called.
    name: Option<String>,
    /// Who may: SPIFFE identities, `prefix/*` for all below one, `authenticated` for anybody with an identity, `*`
    /// for everybody.
    allow: Option<Vec<String>>,
    /// Who may not, in the same words.
    deny: Option<Vec<String>>,
    /// Methods.
    #[serde(default)]
    methods: Vec<String>,
    /// The whole path, without query.
    path: Option<String>,
    /// The beginning of the path.
    path_prefix: Option<String>,
    /// Hosts, without port: exact, or `*.suffix`.
    #[serde(default)]
    hosts: Vec<String>,
    /// Headers and their values.
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// A rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) allows: bool,
    who: Vec<Caller>,
    methods: Vec<String>,
    path: Option<String>,
    path_prefix: Option<String>,
    hosts: Vec<String>,
    headers: BTreeMap<String, String>,
}

/// What rules ask of a request.
pub(crate) trait Facts {
    fn identity(&mut self) -> Option<&str>;
    fn method(&mut self) -> Result<String>;
    fn path(&mut self) -> Result<String>;
    fn host(&mut self) -> Result<String>;
    fn header_values(&mut self, name: &str) -> Result<Vec<String>>;
}

impl RuleConfig {
    /// The rule at a place in the list.
    pub(crate) fn compile(self, at: usize) -> Result<Rule> {
        let name = self.name.unwrap_or_else(|| format!("rules[{at}]"));
        let (allows, who) = match (self.allow, self.deny) {
            (Some(who), None) => (true, who),
            (None, Some(who)) => (false, who),
            (None, None) => {
                return Err(Error::new(format!(
                    "{name} says neither `allow` nor `deny`; add the one that it is for"
                )));
            }
            (Some(_), Some(_)) => {
                return Err(Error::new(format!("{name} says both `allow` and `deny`; make it two rules")));
            }
        };
        if who.is_empty() {
            return Err(Error::new(format!("{name} names nobody; write identities, `authenticated` or `*`")));
        }
        let hosts = self.hosts.iter().map(|host| name_pattern(host));
        let hosts: std::result::Result<_, _> = hosts.collect();
        let hosts = hosts.map_err(|why| Error::new(format!("{name}: {why}")))?;
        Ok(Rule {
            name,
            allows,
            who: who.into_iter().map(Caller::parse).collect(),
            methods: self.methods,
            path: self.path,
            path_prefix: self.path_prefix,
            hosts,
            headers: self
                .headers
                .into_iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
        })
    }
}

impl Rule {
    /// Whether the rule is for this request.
    pub(crate) fn fits(&self, facts: &mut impl Facts) -> Result<bool> {
        if !self.who.iter().any(|who| who.is(facts.identity())) {
            return Ok(false);
        }
        if !self.methods.is_empty() && !self.methods.contains(&facts.method()?) {
            return Ok(false);
        }
        if self.path.is_some() || self.path_prefix.is_some() {
            let path = facts.path()?;
            let exact = self.path.as_ref().is_none_or(|wanted| *wanted == path);
            let prefix = self.path_prefix.as_ref().is_none_or(|prefix| path.starts_with(prefix.as_str()));
            if !exact || !prefix {
                return Ok(false);
            }
        }
        if !self.hosts.is_empty() {
            let host = facts.host()?;
            if !self.hosts.iter().any(|wanted| name_fits(wanted, &host)) {
                return Ok(false);
            }
        }
        for (name, wanted) in &self.headers {
            let values = facts.header_values(name)?;
            // Of a repeated header nobody knows which value the upstream goes by: it opens a door only when every
            // value does, and closes one when any does.
            let fits = if self.allows {
                !values.is_empty() && values.iter().all(|value| value == wanted)
            } else {
                values.iter().any(|value| value == wanted)
            };
            if !fits {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
