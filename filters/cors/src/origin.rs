//! Origins: scheme, host and port, as browsers write them (RFC 6454 section 6.2).

use serde::Deserialize;
use weir_sdk::schema::Schema;
use weir_sdk::{Error, Result};

/// Origins as they are written in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Schema)]
#[serde(try_from = "String")]
pub(crate) enum Pattern {
    /// All of them.
    Any,
    /// One, as browsers write it.
    Exact(String),
    /// `scheme://` and `.example.com:port`: what is below a name.
    Below { scheme: String, suffix: String },
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if text.eq_ignore_ascii_case("null") {
            return Err(
                "`null` is the origin of every page in a sandbox, whoever made it; leave it out".to_owned()
            );
        }
        let wrong = || {
            format!(
                "`{text}` is not an origin; write `https://app.example.com`, with a port only if it is not the usual one"
            )
        };
        let written = text.to_ascii_lowercase();
        let (scheme, rest) = written.split_once("://").ok_or_else(wrong)?;
        let host = rest.strip_prefix("*.").unwrap_or(rest);
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
            Some(_) | None => (host, None),
        };
        let letters = |text: &str, more: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let good_name = match literal {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok() && host == rest,
            None => {
                letters(name, "-._") && !name.starts_with('.') && !name.ends_with('.') && !name.contains("..")
            }
        };
        let good_port = port.is_none_or(|port| !port.starts_with('0') && port.parse::<u16>().is_ok());
        if !letters(scheme, "+-.") || !good_name || !good_port {
            return Err(wrong());
        }
        if let ("https", Some("443")) | ("http", Some("80")) = (scheme, port) {
            return Err(format!(
                "`{text}`: browsers leave the usual port out; write `{scheme}://{}`",
                rest.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(':')
            ));
        }
        Ok(match rest.strip_prefix('*') {
            Some(suffix) => Self::Below { scheme: format!("{scheme}://"), suffix: suffix.to_owned() },
            None => Self::Exact(written),
        })
    }
}

impl Pattern {
    fn fits(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(known) => known == origin,
            Self::Below { scheme, suffix } => {
                let label =
                    origin.strip_prefix(scheme.as_str()).and_then(|rest| rest.strip_suffix(suffix.as_str()));
                // Only a name may stand there: no user, no path, no other host before it.
                label.is_some_and(|label| {
                    let name =
                        label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
                    name && !label.is_empty() && !label.starts_with('.')
                })
            }
        }
    }
}

/// The origins that may.
#[derive(Debug)]
pub(crate) struct Origins {
    patterns: Vec<Pattern>,
}

impl Origins {
    /// # Errors
    /// When they are none, or all of them with credentials.
    pub(crate) fn new(patterns: Vec<Pattern>, credentials: bool) -> Result<Self> {
        if patterns.is_empty() {
            return Err(Error::new(
                "`allow_origins` is empty; list the origins of the pages that may, or `*`",
            ));
        }
        if credentials && patterns.contains(&Pattern::Any) {
            return Err(Error::new(
                "`allow_origins: [\"*\"]` with `allow_credentials` would let every page of the web act as its visitor; \
                 list the origins",
            ));
        }
        Ok(Self { patterns })
    }

    /// Whether responses differ by origin.
    pub(crate) fn differ(&self) -> bool {
        !self.patterns.contains(&Pattern::Any)
    }

    /// What an origin that may is told; `None` for others. That `null` may is said only where everybody may, and then
    /// by an asterisk, as to everybody.
    pub(crate) fn allowed(&self, origin: &[u8]) -> Option<String> {
        if !self.differ() {
            return Some("*".to_owned());
        }
        let origin = str::from_utf8(origin).ok()?;
        self.patterns.iter().any(|pattern| pattern.fits(origin)).then(|| origin.to_owned())
    }
}
