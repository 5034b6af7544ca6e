//! `cors`: tells browsers which origins may send requests and read responses (the Fetch standard, section 3.2), and
//! answers their preflights itself.
//!
//! It is the only one that says so: what the upstream says of it is taken out.

mod origin;

use filter_parts::duration::Span;
use filter_parts::text::is_token;
use weir_sdk::prelude::*;

use crate::origin::{Origins, Pattern};

/// The filter's configuration.
#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The origins: `https://app.example.com`, `https://*.example.com`, or `*` for all.
    allow_origins: Vec<Pattern>,
    /// The methods besides those that need no preflight.
    #[serde(default)]
    allow_methods: Vec<String>,
    /// The request headers besides those that need no preflight.
    #[serde(default)]
    allow_headers: Vec<String>,
    /// The response headers that scripts may read besides those that they always may.
    #[serde(default)]
    expose_headers: Vec<String>,
    /// How long browsers may remember the answer to a preflight.
    max_age: Option<Span>,
    /// Whether cookies and other credentials are sent and responses to such requests may be read.
    #[serde(default)]
    allow_credentials: bool,
    /// Whether pages of a public network may ask for this one, which is private.
    #[serde(default)]
    allow_private_network: bool,
    /// Whether requests from other origins are refused, and not only kept from being read.
    #[serde(default)]
    reject_other_origins: bool,
}

/// The filter. Lists are as they stand in headers.
#[derive(Debug)]
struct Cors {
    origins: Origins,
    methods: String,
    headers: String,
    exposed: String,
    max_age: Option<String>,
    credentials: bool,
    private_network: bool,
    reject: bool,
}

/// What the response to a request says.
#[derive(Debug, Default, PartialEq, Eq)]
enum Answer {
    /// Nothing: the request comes from no origin, or from one that may not.
    #[default]
    Nothing,
    /// That this origin may.
    Allowed(String),
    /// All that a preflight asks for, of this origin.
    Preflight { origin: String, private_network: bool },
    /// What a preflight from elsewhere is told: nothing, and what that depended on.
    Refused,
}

/// What a request tells.
struct Asked<'a> {
    method: &'a str,
    origins: Vec<&'a [u8]>,
    /// Whether it asks whether a method may be used.
    method_wanted: bool,
    private_network_wanted: bool,
}

const OURS: &str = "access-control-";

#[weir_sdk::http_filter]
impl HttpFilter for Cors {
    type Config = Config;
    type Stream = Answer;

    fn new(config: Config) -> Result<Self> {
        Self::compile(config)
    }

    fn on_request_headers(&self, request: &mut Request, answer: &mut Answer) -> Result<Action> {
        let headers = request.headers()?;
        let method = headers.get_only(":method").and_then(|method| str::from_utf8(method).ok());
        *answer = self.answer(&Asked {
            method: method.unwrap_or_default(),
            origins: headers.get_all("origin").collect(),
            method_wanted: headers.get_all("access-control-request-method").next().is_some(),
            private_network_wanted: headers.get_only("access-control-request-private-network")
                == Some(b"true"),
        });
        Ok(match answer {
            Answer::Preflight { .. } => Action::Reply(Reply::new(204).details("preflight")),
            Answer::Refused => {
                Action::Reply(Reply::new(403).body("origin not allowed\n").details("origin not allowed"))
            }
            Answer::Nothing | Answer::Allowed(_) => Action::Continue,
        })
    }

    fn on_response_headers(&self, response: &mut Response, answer: &mut Answer) -> Result<Action> {
        let headers = response.headers()?;
        let mut theirs: Vec<&str> =
            headers.iter().map(|(name, _)| name).filter(|name| name.starts_with(OURS)).collect();
        theirs.dedup();
        for name in theirs {
            response.remove_header(name)?;
        }
        let varies = headers.get_all("vary").flat_map(|value| value.split(|&byte| byte == b','));
        let varies: Vec<&[u8]> = varies.map(<[u8]>::trim_ascii).collect();
        for (name, value) in self.said(answer) {
            if name != "vary" {
                response.set_header(name, value)?;
            } else if !varies
                .iter()
                .any(|there| *there == b"*" || there.eq_ignore_ascii_case(value.as_bytes()))
            {
                response.add_header(name, value)?;
            }
        }
        Ok(Action::Continue)
    }
}

impl Cors {
    fn compile(config: Config) -> Result<Self> {
        let origins = Origins::new(config.allow_origins, config.allow_credentials)?;
        let lists = [
            ("allow_methods", &config.allow_methods),
            ("allow_headers", &config.allow_headers),
            ("expose_headers", &config.expose_headers),
        ];
        for (field, names) in lists {
            // An asterisk is a token, too.
            if let Some(name) = names.iter().find(|name| !is_token(name)) {
                return Err(Error::new(format!(
                    "`{field}`: `{name}` is not a name; use letters, digits and `-`"
                )));
            }
            if config.allow_credentials && names.iter().any(|name| name == "*") {
                return Err(Error::new(format!(
                    "`{field}`: to browsers `*` means nothing beside `allow_credentials`; list the names"
                )));
            }
        }
        Ok(Self {
            origins,
            methods: config.allow_methods.join(", "),
            headers: config.allow_headers.join(", "),
            exposed: config.expose_headers.join(", "),
            max_age: config.max_age.map(|age| age.0.as_secs().to_string()),
            credentials: config.allow_credentials,
            private_network: config.allow_private_network,
            reject: config.reject_other_origins,
        })
    }

    fn answer(&self, asked: &Asked<'_>) -> Answer {
        let preflight = asked.method == "OPTIONS" && asked.method_wanted;
        let origin = match asked.origins.as_slice() {
            [] => return Answer::Nothing,
            [origin] => self.origins.allowed(origin),
            // A request has one origin.
            [_, _, ..] => None,
        };
        match origin {
            Some(origin) if preflight => {
                Answer::Preflight { origin, private_network: asked.private_network_wanted }
            }
            Some(origin) => Answer::Allowed(origin),
            None if preflight || self.reject => Answer::Refused,
            None => Answer::Nothing,
        }
    }

    /// The headers of a response. `vary` is one of several, all others are the only ones of their names.
    fn said<'a>(&'a self, answer: &'a Answer) -> Vec<(&'static str, &'a str)> {
        let mut said = Vec::new();
        let mut say = |name, value: &'a str| {
            if !value.is_empty() {
                said.push((name, value));
            }
        };
        if self.origins.differ() {
            // Whoever keeps responses is to keep one for each origin, and for none.
            say("vary", "origin");
        }
        let origin = match answer {
            Answer::Nothing | Answer::Refused => return said,
            Answer::Allowed(origin) | Answer::Preflight { origin, .. } => origin,
        };
        say("access-control-allow-origin", origin);
        if self.credentials {
            say("access-control-allow-credentials", "true");
        }
        let Answer::Preflight { private_network, .. } = answer else {
            say("access-control-expose-headers", &self.exposed);
            return said;
        };
        say("access-control-allow-methods", &self.methods);
        say("access-control-allow-headers", &self.headers);
        say("access-control-max-age", self.max_age.as_deref().unwrap_or_default());
        if *private_network && self.private_network {
            say("access-control-allow-private-network", "true");
        }
        said
    }
}

#[cfg(test)]
mod tests;
