//! Where requests carry keys and tokens, and requests without them.

use std::borrow::Cow;

use serde::Deserialize;
use weir_sdk::schema::Schema;

use crate::text::{is_token, path_and_query};

/// A place where requests carry keys: exactly one of `header`, `query` and `cookie`.
#[derive(Debug, Clone, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A header.
    header: Option<String>,
    /// What stands before the key in the header, and a space after it: `Bearer`.
    scheme: Option<String>,
    /// A parameter of the query.
    query: Option<String>,
    /// A cookie.
    cookie: Option<String>,
}

/// What of a request is looked at.
pub struct Message<'h> {
    headers: Vec<(&'h str, &'h [u8])>,
}

impl<'h> Message<'h> {
    /// These headers, pseudo-headers among them.
    pub fn new(headers: impl Iterator<Item = (&'h str, &'h [u8])>) -> Self {
        Self { headers: headers.collect() }
    }

    fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'h [u8]> + 's {
        self.headers
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
    }
}

/// What a place holds, and what is left of it without its keys.
#[derive(Debug, PartialEq, Eq)]
pub enum Carried {
    /// No key.
    Nothing,
    /// A header that is a key.
    Header {
        /// Its name.
        name: String,
        /// The key.
        key: Vec<u8>,
    },
    /// Parameters of the query.
    Query {
        /// The path without them.
        path: Vec<u8>,
        /// The keys.
        keys: Vec<Vec<u8>>,
    },
    /// Cookies.
    Cookie {
        /// The other cookies.
        rest: Vec<u8>,
        /// The keys.
        keys: Vec<Vec<u8>>,
    },
}

impl Carried {
    /// How the request is rid of them: by setting a header to a value, or by removing it.
    #[must_use]
    pub fn removal(&self) -> Option<(&str, Option<&[u8]>)> {
        match self {
            Self::Nothing => None,
            Self::Header { name, .. } => Some((name, None)),
            Self::Query { path, .. } => Some((":path", Some(path))),
            Self::Cookie { rest, .. } => {
                Some(("cookie", Some(rest.as_slice()).filter(|rest| !rest.is_empty())))
            }
        }
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let (one, several): (Option<&Vec<u8>>, &[Vec<u8>]) = match self {
            Self::Nothing => (None, &[]),
            Self::Header { key, .. } => (Some(key), &[]),
            Self::Query { keys, .. } | Self::Cookie { keys, .. } => (None, keys),
        };
        one.into_iter().chain(several).map(Vec::as_slice)
    }
}

impl Source {
    /// A header, and the word before the key in it.
    #[must_use]
    pub fn header(name: &str, scheme: Option<&str>) -> Self {
        let scheme = scheme.map(str::to_owned);
        Self { header: Some(name.to_owned()), scheme, query: None, cookie: None }
    }

    /// The place, when it is one.
    ///
    /// # Errors
    /// When it is none, or several.
    pub fn checked(self) -> Result<Self, String> {
        let named = [&self.header, &self.query, &self.cookie].into_iter().flatten().collect::<Vec<_>>();
        let [name] = named.as_slice() else {
            return Err("each place of `from` has exactly one of `header`, `query` and `cookie`".to_owned());
        };
        if self.query.is_none() && !is_token(name) || name.is_empty() {
            return Err(format!("`from`: `{name}` is not a name; use letters, digits, `-` and `_`"));
        }
        if let Some(scheme) = &self.scheme
            && (self.header.is_none() || !is_token(scheme))
        {
            let what = "`scheme` is one word before the key in a `header`, as `Bearer` in `authorization`";
            return Err(what.to_owned());
        }
        Ok(self)
    }

    /// The scheme of the challenge that asks for such a key.
    #[must_use]
    pub fn scheme(&self) -> Option<&str> {
        self.scheme.as_deref()
    }

    /// The keys that a request carries here.
    ///
    /// # Errors
    /// When nobody could tell what it carries.
    pub fn find(&self, message: &Message<'_>) -> Result<Carried, String> {
        if let Some(name) = &self.header {
            return self.in_header(name, message);
        }
        if let Some(name) = &self.query {
            let path = message.all(":path").next().unwrap_or_default();
            return Ok(in_query(name, path));
        }
        match &self.cookie {
            Some(name) => Ok(in_cookies(name, message)),
            None => Ok(Carried::Nothing),
        }
    }

    fn in_header(&self, name: &str, message: &Message<'_>) -> Result<Carried, String> {
        let mut values = message.all(name);
        let Some(value) = values.next() else { return Ok(Carried::Nothing) };
        if values.next().is_some() {
            return Err(format!("several headers {}", name.to_ascii_lowercase()));
        }
        let value = value.trim_ascii();
        let key = match &self.scheme {
            None => Some(value),
            Some(scheme) => match value.split_at_checked(scheme.len()) {
                Some((before, [b' ', key @ ..])) if before.eq_ignore_ascii_case(scheme.as_bytes()) => {
                    Some(key.trim_ascii_start())
                }
                Some(_) | None => None,
            },
        };
        Ok(match key {
            Some(key) => Carried::Header { name: name.to_owned(), key: key.to_vec() },
            None => Carried::Nothing,
        })
    }
}

/// Names and values are decoded before they are compared: `api%5fkey` is `api_key` to the upstream, too.
fn in_query(name: &str, path: &[u8]) -> Carried {
    let Ok(target) = str::from_utf8(path) else { return Carried::Nothing };
    let (path, Some(query)) = path_and_query(target) else { return Carried::Nothing };
    let (mut keys, mut rest) = (Vec::new(), Vec::new());
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if *decoded(key) == *name.as_bytes() {
            keys.push(decoded(value).into_owned());
        } else {
            rest.push(pair);
        }
    }
    if keys.is_empty() {
        return Carried::Nothing;
    }
    let path = if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) };
    Carried::Query { path: path.into_bytes(), keys }
}

/// A name or a value of a query without its encoding; what is no encoding stays as it is.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (first, more) {
            (b'%', [high, low, after @ ..]) if digit(high).is_some() && digit(low).is_some() => {
                out.push(digit(high).unwrap_or(0) << 4 | digit(low).unwrap_or(0));
                rest = after;
            }
            (b'+', _) => {
                out.push(b' ');
                rest = more;
            }
            _ => {
                out.push(*first);
                rest = more;
            }
        }
    }
    Cow::Owned(out)
}

/// HTTP/2 may spread cookies over several headers; they are one list.
fn in_cookies(name: &str, message: &Message<'_>) -> Carried {
    let (mut keys, mut rest) = (Vec::new(), Vec::new());
    let pairs =
        message.all("cookie").flat_map(|value| value.split(|&byte| byte == b';')).map(<[u8]>::trim_ascii);
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        let equals = pair.iter().position(|&byte| byte == b'=');
        let (key, value) = match equals.and_then(|at| pair.split_at_checked(at)) {
            Some((key, [_, value @ ..])) => (key, value),
            Some(_) | None => (pair, [].as_slice()),
        };
        if key.trim_ascii() == name.as_bytes() {
            let value = value.trim_ascii();
            let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
            keys.push(quoted.unwrap_or(value).to_vec());
        } else {
            rest.push(pair);
        }
    }
    if keys.is_empty() { Carried::Nothing } else { Carried::Cookie { rest: rest.join(&b"; "[..]), keys } }
}

/// A target without a parameter of its query, by the decoded name.
#[must_use]
pub fn query_without(name: &str, target: &str) -> String {
    match in_query(name, target.as_bytes()) {
        Carried::Query { path, .. } => String::from_utf8_lossy(&path).into_owned(),
        Carried::Nothing | Carried::Header { .. } | Carried::Cookie { .. } => target.to_owned(),
    }
}

/// A target with a further parameter of its query.
#[must_use]
pub fn query_with(name: &str, value: &str, target: &str) -> String {
    let (path, query) = path_and_query(target);
    let query = query.map(|query| format!("{query}&")).unwrap_or_default();
    format!("{path}?{query}{}={}", encoded(name), encoded(value))
}

/// A name or a value as it stands in a query: all but what never needs it is encoded (RFC 3986 section 2.3).
fn encoded(text: &str) -> String {
    let byte = |byte: u8| {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_put_into_a_query_and_taken_out_by_their_decoded_names() {
        assert_eq!(query_without("a b", "/x?a+b=1&c=2&a%20b=3"), "/x?c=2");
        assert_eq!(query_without("a", "/x?a=1"), "/x");
        assert_eq!(query_without("a", "/x?ab=1"), "/x?ab=1");
        assert_eq!(query_with("a b", "&=/\u{e9}", "/x?c=2"), "/x?c=2&a%20b=%26%3D%2F%C3%A9");
        assert_eq!(query_with("a", "", "/x#f"), "/x?a=");
    }
}
