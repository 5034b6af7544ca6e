//! `jwt`: requests are let in by a signed token (RFC 7519), and the upstream is told what it says.
//!
//! Who has issued a token decides which keys are looked at; the keys decide by which algorithms they verify. A token
//! decides nothing before it is verified.

mod key;
mod provider;
mod remote;
mod seen;
mod token;

use std::time::{SystemTime, UNIX_EPOCH};

use filter_parts::carried::{Carried, Message, Source};
use filter_parts::text::is_plain;
use weir_sdk::prelude::*;

use crate::provider::{Provider, ProviderConfig, Refusal};
use crate::token::Token;

/// The filter's configuration.
#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Who issues tokens that open.
    providers: Vec<ProviderConfig>,
    /// Where requests carry them.
    #[serde(default = "usual")]
    from: Vec<Source>,
    /// Whether requests without a token go on. One that is no good is refused all the same.
    #[serde(default)]
    optional: bool,
    /// Whether the token goes on to the upstream.
    #[serde(default)]
    forward: bool,
    /// What the challenge of a 401 calls what is protected.
    #[serde(default = "realm")]
    realm: String,
}

fn usual() -> Vec<Source> {
    vec![Source::header("authorization", Some("Bearer"))]
}

fn realm() -> String {
    "api".to_owned()
}

/// The filter.
#[derive(Debug)]
struct Jwt {
    providers: Vec<Provider>,
    from: Vec<Source>,
    optional: bool,
    forward: bool,
    realm: String,
}

#[weir_sdk::http_filter]
impl HttpFilter for Jwt {
    type Config = Config;

    fn new(config: Config) -> Result<Self> {
        if config.providers.is_empty() {
            return Err(Error::new("`providers` is empty, so that no token would open; add one"));
        }
        if config.from.is_empty() {
            return Err(Error::new(
                "`from` is empty, so that no request could carry a token; leave it out or add a place",
            ));
        }
        if !is_plain(&config.realm) || config.realm.contains(['"', '\\']) {
            return Err(Error::new("`realm` cannot stand in a header; use plain ASCII without quotes"));
        }
        let mut providers: Vec<Provider> = Vec::new();
        for (at, provider) in config.providers.into_iter().enumerate() {
            let provider = provider.compile(at)?;
            if providers.iter().any(|other| other.issuer == provider.issuer) {
                let who = provider.issuer.as_deref().unwrap_or("whoever has none");
                return Err(Error::new(format!(
                    "providers[{at}]: `issuer` is that of another provider, {who}"
                )));
            }
            providers.push(provider);
        }
        let from = config.from.into_iter().map(|source| source.checked().map_err(Error::new));
        let from = from.collect::<Result<_>>()?;
        Ok(Self { providers, from, optional: config.optional, forward: config.forward, realm: config.realm })
    }

    async fn on_request_headers(&self, request: &mut Request, _: &mut ()) -> Result<Action> {
        let carried = match self.carried(&request.headers()?) {
            Ok(carried) => carried,
            Err(why) => return Ok(self.refuse(why)),
        };
        let said = match carried {
            None if self.optional => Vec::new(),
            None => return Ok(self.challenge("no token", "")),
            Some(token) => match self.verify(&token).await {
                Ok(said) => said,
                Err(Refusal::Token(why)) => return Ok(self.refuse(why)),
                Err(Refusal::Keys(why)) => {
                    return Ok(Action::Reply(Reply::new(503).body("keys unavailable\n").details(why)));
                }
            },
        };
        self.tell(request, said)?;
        if !self.forward {
            self.strip(request)?;
        }
        Ok(Action::Continue)
    }
}

impl Jwt {
    /// The token that a request carries. Several that differ are none: nobody knows which of them others would go by.
    fn carried(&self, headers: &Headers) -> std::result::Result<Option<Vec<u8>>, &'static str> {
        let message = Message::new(headers.iter());
        let mut token: Option<Vec<u8>> = None;
        for source in &self.from {
            let carried = source.find(&message).map_err(|_| "several headers with tokens")?;
            for key in carried.keys() {
                if token.as_ref().is_some_and(|token| token != key) {
                    return Err("several tokens");
                }
                token = Some(key.to_vec());
            }
        }
        Ok(token)
    }

    async fn verify(&self, token: &[u8]) -> std::result::Result<Vec<(&str, String)>, Refusal> {
        let token = Token::parse(token).map_err(Refusal::Token)?;
        let by_name =
            |provider: &&Provider| provider.issuer.is_some() && provider.issuer.as_deref() == token.issuer();
        let named = self.providers.iter().find(by_name);
        let provider = named.or_else(|| self.providers.iter().find(|provider| provider.issuer.is_none()));
        let provider = provider.ok_or(Refusal::Token("unknown issuer"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        provider.verify(&token, now).await
    }

    /// Tells the upstream what the token says. Nobody else may say so.
    fn tell(&self, request: &mut Request, said: Vec<(&str, String)>) -> Result<()> {
        for name in self.providers.iter().flat_map(Provider::header_names) {
            request.remove_header(name)?;
        }
        said.into_iter().try_for_each(|(name, text)| request.set_header(name, text))
    }

    /// Takes the token out of a request, place by place: several may be in one header.
    fn strip(&self, request: &mut Request) -> Result<()> {
        for source in &self.from {
            let headers = request.headers()?;
            let carried: Carried = source.find(&Message::new(headers.iter())).map_err(Error::new)?;
            match carried.removal() {
                Some((name, Some(value))) => request.set_header(name, value)?,
                Some((name, None)) => request.remove_header(name)?,
                None => {}
            }
        }
        Ok(())
    }

    fn refuse(&self, why: &str) -> Action {
        self.challenge(why, ", error=\"invalid_token\"")
    }

    /// A challenge (RFC 6750 section 3). The caller learns that the token is no good, and the log why.
    fn challenge(&self, why: &str, error: &str) -> Action {
        let challenge = format!("Bearer realm=\"{}\"{error}", self.realm);
        let reply = Reply::new(401).header("www-authenticate", challenge).body("unauthorized\n");
        Action::Reply(reply.details(why))
    }
}

#[cfg(test)]
mod tests;
