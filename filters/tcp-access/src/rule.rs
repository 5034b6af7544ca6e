//! Rules: whom they are for, what they ask of a connection.

use std::net::IpAddr;

use filter_parts::address::Network;
use filter_parts::caller::Caller;
use filter_parts::text::{is_plain, name_fits, name_pattern};
use serde::Deserialize;
use weir_sdk::schema::Schema;
use weir_sdk::{Error, Result};

/// A rule as it is written. All that is set must fit.
#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleConfig {
    /// How the decision is called.
    name: Option<String>,
    /// Who may.
    allow: Option<Vec<String>>,
    /// Who may not.
    deny: Option<Vec<String>>,
    /// The names that the client asks for in its TLS handshake: exact, or `*.suffix`.
    #[serde(default)]
    server_names: Vec<String>,
    /// Application protocols (ALPN).
    #[serde(default)]
    alpn: Vec<String>,
    /// Addresses and networks of the client.
    #[serde(default)]
    addresses: Vec<Network>,
}

/// A rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) allows: bool,
    who: Vec<Who>,
    server_names: Vec<String>,
    alpn: Vec<String>,
    addresses: Vec<Network>,
}

/// Whom a rule is for.
#[derive(Debug, PartialEq, Eq)]
enum Who {
    /// By SPIFFE identity.
    Caller(Caller),
    /// Whoever has shown a certificate that was verified.
    Certificate,
    /// By the DNS name in the certificate.
    Dns(String),
    /// By the certificate itself.
    Digest(String),
}

/// What rules ask of a connection.
pub(crate) trait Facts {
    fn address(&self) -> Option<IpAddr>;
    fn server_name(&self) -> Result<Option<String>>;
    fn offered(&self) -> Result<Offered>;
    fn has_certificate(&self) -> Result<bool>;
    fn identity(&self) -> Result<Option<String>>;
    fn dns_name(&self) -> Result<Option<String>>;
    fn digest(&self) -> Result<Option<String>>;
}

/// The application protocols of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Offered {
    /// The one that was negotiated, or all that the client offers where TLS passes through.
    Known(Vec<Vec<u8>>),
    /// There may be some, but the host does not tell.
    Unknown,
}

impl RuleConfig {
    /// The rule at a place in the list.
    pub(crate) fn compile(self, at: usize) -> Result<Rule> {
        let name = self.name.unwrap_or_else(|| format!("rules[{at}]"));
        let error = |why: &str| Error::new(format!("{name} {why}"));
        if !is_plain(&name) {
            return Err(error("cannot stand in a log line; use plain ASCII"));
        }
        let (allows, who) = match (self.allow, self.deny) {
            (Some(who), None) => (true, who),
            (None, Some(who)) => (false, who),
            (None, None) => return Err(error("says neither `allow` nor `deny`; add the one that it is for")),
            (Some(_), Some(_)) => return Err(error("says both `allow` and `deny`; make it two rules")),
        };
        if who.is_empty() {
            return Err(error("names nobody; write identities, `authenticated`, `certificate` or `*`"));
        }
        if self.alpn.iter().any(String::is_empty) {
            return Err(error("has an empty protocol in `alpn`; `h2` and `http/1.1` are some"));
        }
        let told = |why: String| error(&format!("has a mistake: {why}"));
        let who = who.into_iter().map(Who::parse).collect::<std::result::Result<_, _>>().map_err(told)?;
        let patterns = self.server_names.iter().map(|pattern| name_pattern(pattern));
        let server_names = patterns.collect::<std::result::Result<_, _>>().map_err(told)?;
        Ok(Rule { allows, who, server_names, alpn: self.alpn, addresses: self.addresses, name })
    }
}

impl Who {
    fn parse(word: String) -> std::result::Result<Self, String> {
        if word == "certificate" {
            return Ok(Self::Certificate);
        }
        if let Some(name) = word.strip_prefix("dns:") {
            return name_pattern(name).map(Self::Dns);
        }
        if let Some(digest) = word.strip_prefix("sha256:") {
            let digest = digest.replace(':', "").to_ascii_lowercase();
            let good = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
            return if good {
                Ok(Self::Digest(digest))
            } else {
                Err(format!("`{word}` is no SHA-256 of a certificate; it has 64 hexadecimal digits"))
            };
        }
        if word == "*" || word == "authenticated" || word.starts_with("spiffe://") {
            return Ok(Self::Caller(Caller::parse(word)));
        }
        Err(format!(
            "`{word}` is nobody; write `spiffe://...`, `dns:NAME`, `sha256:DIGEST`, `authenticated`, `certificate` or `*`"
        ))
    }

    fn is(&self, facts: &impl Facts) -> Result<bool> {
        Ok(match self {
            Self::Caller(Caller::Everybody) => true,
            // What is not verified says nothing of who it is.
            _ if !facts.has_certificate()? => false,
            Self::Certificate => true,
            Self::Caller(caller) => caller.is(facts.identity()?.as_deref()),
            Self::Dns(pattern) => facts.dns_name()?.is_some_and(|name| name_fits(pattern, &name)),
            Self::Digest(wanted) => facts.digest()?.is_some_and(|digest| digest.eq_ignore_ascii_case(wanted)),
        })
    }
}

impl Rule {
    /// Whether the rule is for this connection.
    pub(crate) fn fits(&self, facts: &impl Facts) -> Result<bool> {
        if !self.addresses.is_empty() {
            let inside = |address| self.addresses.iter().any(|network| network.contains(address));
            if !facts.address().map_or(!self.allows, inside) {
                return Ok(false);
            }
        }
        if !self.server_names.is_empty() {
            let name = facts.server_name()?;
            if !name.is_some_and(|name| self.server_names.iter().any(|wanted| name_fits(wanted, &name))) {
                return Ok(false);
            }
        }
        if !self.alpn.is_empty() && !self.fits_protocols(&facts.offered()?) {
            return Ok(false);
        }
        for who in &self.who {
            if who.is(facts)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Of several protocols that a client offers nobody knows which one the upstream takes: they open a door only when
    /// all do, and close one when any does, or when the host does not tell.
    fn fits_protocols(&self, offered: &Offered) -> bool {
        let listed = |name: &Vec<u8>| self.alpn.iter().any(|wanted| wanted.as_bytes() == name.as_slice());
        match offered {
            Offered::Known(names) if self.allows => !names.is_empty() && names.iter().all(listed),
            Offered::Known(names) => names.iter().any(listed),
            Offered::Unknown => !self.allows,
        }
    }
}

#[cfg(test)]
mod tests;
