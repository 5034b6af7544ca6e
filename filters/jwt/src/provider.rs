//! Providers: who issues tokens, and what their tokens must be like.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use filter_parts::duration::Span;
use filter_parts::text::is_token;
use serde::Deserialize;
use serde_json::{Value, json};
use weir_sdk::schema::Schema;
use weir_sdk::{Error, Result, timer};

use crate::key::{Algorithm, Key, read_set};
use crate::remote::{Remote, RemoteConfig};
use crate::seen::Seen;
use crate::token::{Token, Wanted};

/// A provider as it is written.
#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderConfig {
    /// Who issues the tokens: what they have as `iss`. Without it, whoever no other provider is.
    issuer: Option<String>,
    /// Whom tokens must be for, one of these: what they have as `aud`. Without any, they may be for anybody.
    #[serde(default)]
    audiences: Vec<String>,
    /// The algorithms that may be used.
    #[serde(default = "Algorithm::usual")]
    algorithms: Vec<Algorithm>,
    /// Where the keys are served.
    jwks: Option<RemoteConfig>,
    /// The keys themselves, as in the `keys` of a JWKS.
    keys: Option<Vec<Value>>,
    /// Whether tokens must say when they end.
    #[serde(default = "yes")]
    require_expiry: bool,
    /// How far the clocks may be apart.
    #[serde(default = "a_minute")]
    leeway: Span,
    /// Request headers, and the claims that they tell the upstream.
    #[serde(default)]
    claims_to_headers: BTreeMap<String, ClaimPath>,
}

fn yes() -> bool {
    true
}

fn a_minute() -> Span {
    Span(Duration::from_secs(60))
}

/// Where a claim is: names with dots between them, or, when names have dots in them, a list.
#[derive(Debug, Deserialize, Schema)]
#[serde(untagged)]
enum ClaimPath {
    Dotted(String),
    Listed(Vec<String>),
}

/// A provider.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) issuer: Option<String>,
    audiences: Vec<String>,
    algorithms: Vec<Algorithm>,
    keys: Keys,
    seen: Seen,
    require_expiry: bool,
    leeway: Duration,
    /// Headers, and the paths of the claims that they tell.
    headers: Vec<(String, Vec<String>)>,
}

#[derive(Debug)]
enum Keys {
    Here(Rc<[Key]>),
    Served(Remote),
}

/// Why a token does not open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is no good.
    Token(&'static str),
    /// Nobody can tell: the keys are not to be had.
    Keys(String),
}

impl ProviderConfig {
    /// The provider at a place of the list.
    pub(crate) fn compile(self, at: usize) -> Result<Provider> {
        let error = |why: String| Error::new(format!("providers[{at}]: {why}"));
        if self.algorithms.is_empty() {
            return Err(error(
                "`algorithms` is empty, so that no token would do; leave it out or name some".to_owned(),
            ));
        }
        let keys = match (self.jwks, self.keys) {
            (Some(remote), None) => Keys::Served(remote.compile().map_err(|why| error(why.to_string()))?),
            (None, Some(keys)) => {
                let set = json!({ "keys": keys }).to_string();
                match read_set(set.as_bytes()).map_err(error)? {
                    (keys, odd) if odd.is_empty() => Keys::Here(keys.into()),
                    (_, odd) => return Err(error(odd.join("; "))),
                }
            }
            (None, None) | (Some(_), Some(_)) => {
                return Err(error("it has exactly one of `jwks` and `keys`".to_owned()));
            }
        };
        let mut headers = Vec::new();
        for (name, path) in self.claims_to_headers {
            let path = match path {
                ClaimPath::Dotted(path) => path.split('.').map(str::to_owned).collect(),
                ClaimPath::Listed(path) => path,
            };
            if !is_token(&name) || path.is_empty() || path.iter().any(String::is_empty) {
                return Err(error(format!(
                    "`claims_to_headers`: `{name}` needs a header name and a claim, as in `x-user: sub`"
                )));
            }
            headers.push((name, path));
        }
        Ok(Provider {
            issuer: self.issuer,
            audiences: self.audiences,
            algorithms: self.algorithms,
            keys,
            seen: Seen::default(),
            require_expiry: self.require_expiry,
            leeway: self.leeway.0,
            headers,
        })
    }
}

impl Provider {
    /// The headers that only this filter may set.
    pub(crate) fn header_names(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().map(|(name, _)| name.as_str())
    }

    /// Verifies a token at a moment since 1970, and tells the headers that its claims make.
    ///
    /// # Errors
    /// Why it does not open.
    pub(crate) async fn verify(
        &self,
        token: &Token,
        now: Duration,
    ) -> std::result::Result<Vec<(&str, String)>, Refusal> {
        if !self.algorithms.contains(&token.algorithm) {
            return Err(Refusal::Token("algorithm not allowed"));
        }
        // What is no good anyway need not be verified.
        let wanted = Wanted {
            audiences: &self.audiences,
            expires: self.require_expiry,
            leeway: self.leeway.as_secs_f64(),
        };
        token.check(&wanted, now.as_secs_f64()).map_err(Refusal::Token)?;
        let keys = match &self.keys {
            Keys::Here(keys) => Rc::clone(keys),
            Keys::Served(remote) => {
                let keys = remote.keys(now, |keys| token.knows_key(keys)).await;
                keys.map_err(|error| Refusal::Keys(error.to_string()))?
            }
        };
        if !token.knows_key(&keys) {
            return Err(Refusal::Token("unknown key"));
        }
        let digest = token.digest();
        if !self.seen.knows(&keys, &digest) {
            if !is_signed(token, &keys).await {
                return Err(Refusal::Token("wrong signature"));
            }
            self.seen.add(&keys, digest);
        }
        let mut said = Vec::new();
        for (name, path) in &self.headers {
            if let Some(text) = token.claim(path) {
                if text.chars().any(char::is_control) {
                    return Err(Refusal::Token("a claim cannot stand in a header"));
                }
                said.push((name.as_str(), text));
            }
        }
        Ok(said)
    }
}

/// Whether one of the keys has signed a token. To verify takes a good part of the CPU time that a callback has, so each
/// further key is tried in a callback of its own.
async fn is_signed(token: &Token, keys: &[Key]) -> bool {
    for (at, key) in token.candidates(keys).enumerate() {
        if at > 0 {
            timer::sleep(Duration::from_millis(1)).await;
        }
        if token.is_signed_with(key) {
            return true;
        }
    }
    false
}
