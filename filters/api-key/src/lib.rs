//! `api-key`: requests are let in by a key that they carry in a header, in the query or in a cookie.
//!
//! Of a key only its SHA-256 is kept and compared, so that neither the time that takes nor the memory of the plugin
//! tells anything of it. What a request carries is taken out of it before it goes on, unless it is to be forwarded.

mod digest;

use std::collections::BTreeSet;

use filter_parts::carried::{Carried, Message, Source};
use filter_parts::text::{is_plain, is_token};
use weir_sdk::prelude::*;
use weir_sdk::properties;

use crate::digest::{Digest, KeyConfig};

/// The filter's configuration.
#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The keys.
    keys: Vec<KeyConfig>,
    /// Where requests carry them.
    #[serde(default = "usual")]
    from: Vec<Source>,
    /// The names of keys that may be used here; without it, of all.
    allow: Option<Vec<String>>,
    /// Whether requests without a key go on. A wrong one is refused all the same.
    #[serde(default)]
    optional: bool,
    /// Whether the key goes on to the upstream.
    #[serde(default)]
    forward: bool,
    /// The request header that tells the upstream the key's name. What the client says there is removed.
    name_header: Option<String>,
    /// What the challenge of a 401 calls what is protected.
    #[serde(default = "realm")]
    realm: String,
}

fn usual() -> Vec<Source> {
    vec![Source::header("x-api-key", None)]
}

fn realm() -> String {
    "api".to_owned()
}

/// A key.
#[derive(Debug)]
struct Key {
    name: String,
    digest: Digest,
    allowed: bool,
}

/// The filter.
#[derive(Debug)]
struct ApiKey {
    keys: Vec<Key>,
    from: Vec<Source>,
    optional: bool,
    forward: bool,
    name_header: Option<String>,
    challenge: String,
}

/// Whether a request may pass.
#[derive(Debug, PartialEq, Eq)]
enum Verdict<'a> {
    /// It may, by the key of this name, or without one.
    Pass(Option<&'a str>),
    /// It may not, for this reason, which the access log tells.
    Refuse(u16, String),
}

#[weir_sdk::http_filter]
impl HttpFilter for ApiKey {
    type Config = Config;

    fn new(config: Config) -> Result<Self> {
        Self::compile(config, |name| std::env::var(name).ok())
    }

    fn on_request_headers(&self, request: &mut Request, _: &mut ()) -> Result<Action> {
        let headers = request.headers()?;
        let message = Message::new(headers.iter());
        let carried =
            self.from.iter().map(|source| source.find(&message)).collect::<std::result::Result<Vec<_>, _>>();
        let verdict = match carried {
            Ok(carried) => self.judge(carried.iter().flat_map(Carried::keys)),
            Err(why) => Verdict::Refuse(401, why),
        };
        match verdict {
            Verdict::Pass(name) => {
                if name.is_some() && !self.forward {
                    self.strip(request)?;
                }
                self.tell(request, name)?;
                Ok(Action::Continue)
            }
            Verdict::Refuse(status, why) => {
                let reply =
                    Reply::new(status).body(if status == 401 { "unauthorized\n" } else { "denied\n" });
                let reply = if status == 401 {
                    reply.header("www-authenticate", self.challenge.as_str())
                } else {
                    reply
                };
                Ok(Action::Reply(reply.details(why)))
            }
        }
    }
}

impl ApiKey {
    /// Makes the filter. `variable` gives what a variable of the environment holds.
    fn compile(config: Config, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        if config.keys.is_empty() {
            return Err(Error::new("`keys` is empty, so that nobody could come in; add a key"));
        }
        if config.from.is_empty() {
            return Err(Error::new(
                "`from` is empty, so that no request could carry a key; leave it out or add a place",
            ));
        }
        let from = config
            .from
            .into_iter()
            .map(|source| source.checked().map_err(Error::new))
            .collect::<Result<Vec<_>>>()?;
        if let Some(header) = config.name_header.as_deref().filter(|name| !is_token(name)) {
            return Err(Error::new(format!(
                "`name_header: {header}` is not a header name; use letters, digits and `-`"
            )));
        }
        if !is_plain(&config.realm) || config.realm.contains(['"', '\\']) {
            return Err(Error::new("`realm` cannot stand in a header; use plain ASCII without quotes"));
        }
        let mut keys: Vec<Key> = Vec::new();
        for (at, key) in config.keys.into_iter().enumerate() {
            let (name, digest) = key.digest(at, &variable)?;
            if config.name_header.is_some() && !is_plain(&name) {
                return Err(Error::new(format!(
                    "the name `{name}` cannot stand in a header; use plain ASCII"
                )));
            }
            if let Some(other) = keys.iter().find(|other| other.digest == digest) {
                return Err(Error::new(format!(
                    "`{}` and `{name}` are the same key; remove one",
                    other.name
                )));
            }
            let allowed = config.allow.as_ref().is_none_or(|allow| allow.contains(&name));
            keys.push(Key { name, digest, allowed });
        }
        let known: BTreeSet<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        if let Some(other) = config.allow.iter().flatten().find(|name| !known.contains(name.as_str())) {
            let known: Vec<&str> = known.into_iter().collect();
            return Err(Error::new(format!(
                "`allow`: there is no key `{other}`; there are {}",
                known.join(", ")
            )));
        }
        let scheme = from.iter().find_map(Source::scheme).unwrap_or("ApiKey");
        Ok(Self {
            keys,
            optional: config.optional,
            forward: config.forward,
            name_header: config.name_header,
            challenge: format!("{scheme} realm=\"{}\"", config.realm),
            from,
        })
    }

    /// Whether a request with these keys may pass. Several that differ are none: nobody knows which of them others
    /// would go by.
    fn judge<'k>(&self, mut carried: impl Iterator<Item = &'k [u8]>) -> Verdict<'_> {
        let Some(first) = carried.next() else {
            if self.optional {
                return Verdict::Pass(None);
            }
            return Verdict::Refuse(401, "no key".to_owned());
        };
        if carried.any(|other| other != first) {
            return Verdict::Refuse(401, "several keys".to_owned());
        }
        let digest = Digest::of(first);
        // All are compared, so that the time does not tell which one it is.
        let found =
            self.keys.iter().fold(None, |found, key| if key.digest.is(&digest) { Some(key) } else { found });
        match found {
            Some(key) if key.allowed => Verdict::Pass(Some(&key.name)),
            Some(key) => Verdict::Refuse(403, format!("key {} is not allowed here", key.name)),
            None => Verdict::Refuse(401, "unknown key".to_owned()),
        }
    }

    /// Takes the key out of a request, place by place: several may be in one header.
    fn strip(&self, request: &mut Request) -> Result<()> {
        for source in &self.from {
            let headers = request.headers()?;
            let carried = source.find(&Message::new(headers.iter())).map_err(Error::new)?;
            match carried.removal() {
                Some((name, Some(value))) => request.set_header(name, value)?,
                Some((name, None)) => request.remove_header(name)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Tells the upstream and later filters whose key it was. Nobody else may tell that.
    fn tell(&self, request: &mut Request, name: Option<&str>) -> Result<()> {
        match (&self.name_header, name) {
            (Some(header), Some(name)) => request.set_header(header, name)?,
            (Some(header), None) => request.remove_header(header)?,
            (None, _) => {}
        }
        if let Some(name) = name {
            properties::set(&["api_key_name"], name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
