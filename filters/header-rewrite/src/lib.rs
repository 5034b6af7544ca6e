//! `header-rewrite`: sets, adds, removes and renames headers of requests and responses.
//!
//! Values may hold properties: `%{connection.uri_san_peer_certificate}` stands for what the host knows by that name, and
//! for nothing when it does not.

mod value;

use std::collections::BTreeMap;

use weir_sdk::prelude::*;

use crate::value::Value;

/// The filter's configuration.
#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What becomes of requests.
    #[serde(default)]
    request: EditsConfig,
    /// What becomes of responses.
    #[serde(default)]
    response: EditsConfig,
}

/// Edits, done in the order of the fields.
#[derive(Debug, Default, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
struct EditsConfig {
    /// Headers to remove.
    #[serde(default)]
    remove: Vec<String>,
    /// Headers to rename, from old to new; all values go along.
    #[serde(default)]
    rename: BTreeMap<String, String>,
    /// Headers to set to one value.
    #[serde(default)]
    set: BTreeMap<String, String>,
    /// Values to add.
    #[serde(default)]
    add: BTreeMap<String, String>,
}

/// The filter.
#[derive(Debug)]
struct HeaderRewrite {
    request: Edits,
    response: Edits,
}

#[derive(Debug)]
struct Edits {
    remove: Vec<String>,
    rename: BTreeMap<String, String>,
    set: Vec<(String, Value)>,
    add: Vec<(String, Value)>,
}

#[weir_sdk::http_filter]
impl HttpFilter for HeaderRewrite {
    type Config = Config;

    fn new(config: Config) -> Result<Self> {
        let request = Edits::new(config.request)?;
        request.keeps_host()?;
        Ok(Self { request, response: Edits::new(config.response)? })
    }

    fn on_request_headers(&self, request: &mut Request, _: &mut ()) -> Result<Action> {
        self.request.apply(request)?;
        Ok(Action::Continue)
    }

    fn on_response_headers(&self, response: &mut Response, _: &mut ()) -> Result<Action> {
        self.response.apply(response)?;
        Ok(Action::Continue)
    }
}

impl Edits {
    fn new(config: EditsConfig) -> Result<Self> {
        let parse = |values: BTreeMap<String, String>| -> Result<Vec<(String, Value)>> {
            values.into_iter().map(|(name, text)| Ok((name, Value::parse(&text)?))).collect()
        };
        let edits = Self {
            remove: config.remove,
            rename: config.rename,
            set: parse(config.set)?,
            add: parse(config.add)?,
        };
        let added = edits.set.iter().chain(&edits.add).map(|(name, _)| name);
        let renamed = edits.rename.iter().flat_map(|(old, new)| [old, new]);
        for name in edits.remove.iter().chain(renamed).chain(added) {
            check_name(name)?;
        }
        Ok(edits)
    }

    /// A request has exactly one host (RFC 9112 section 3.2).
    fn keeps_host(&self) -> Result<()> {
        let renamed = self.rename.iter().flat_map(|(old, new)| [old, new]);
        let added = self.add.iter().map(|(name, _)| name);
        if self.remove.iter().chain(renamed).chain(added).any(|name| name.eq_ignore_ascii_case("host")) {
            return Err(Error::new("a request has exactly one `host`, which can be `set` and nothing else"));
        }
        Ok(())
    }

    fn apply(&self, message: &mut impl Message) -> Result<()> {
        for name in &self.remove {
            message.remove(name)?;
        }
        for (old, new) in &self.rename {
            let values = message.values(old)?;
            if !values.is_empty() {
                message.remove(old)?;
                message.remove(new)?;
            }
            for value in values {
                message.add(new, &value)?;
            }
        }
        for (name, value) in &self.set {
            message.set(name, &value.fill()?)?;
        }
        for (name, value) in &self.add {
            message.add(name, &value.fill()?)?;
        }
        Ok(())
    }
}

/// What the edits need of a message.
trait Message {
    fn values(&self, name: &str) -> Result<Vec<Vec<u8>>>;
    fn remove(&mut self, name: &str) -> Result<()>;
    fn set(&mut self, name: &str, value: &[u8]) -> Result<()>;
    fn add(&mut self, name: &str, value: &[u8]) -> Result<()>;
}

/// Requests and responses have the same functions.
macro_rules! message {
    ($($name:ty),*) => {
        $(impl Message for $name {
            fn values(&self, name: &str) -> Result<Vec<Vec<u8>>> {
                Ok(self.headers()?.get_all(name).map(<[u8]>::to_vec).collect())
            }

            fn remove(&mut self, name: &str) -> Result<()> {
                self.remove_header(name)
            }

            fn set(&mut self, name: &str, value: &[u8]) -> Result<()> {
                self.set_header(name, value)
            }

            fn add(&mut self, name: &str, value: &[u8]) -> Result<()> {
                self.add_header(name, value)
            }
        })*
    };
}

message!(Request, Response);

/// A header name is a token (RFC 9110 section 5.1); pseudo-headers are the routes' business.
fn check_name(name: &str) -> Result<()> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(token) {
        return Err(Error::new(format!("`{name}` is not a header name; use letters, digits and `-`")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Fake(Vec<(String, Vec<u8>)>);

    impl Message for Fake {
        fn values(&self, name: &str) -> Result<Vec<Vec<u8>>> {
            Ok(self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect())
        }

        fn remove(&mut self, name: &str) -> Result<()> {
            self.0.retain(|(known, _)| known != name);
            Ok(())
        }

        fn set(&mut self, name: &str, value: &[u8]) -> Result<()> {
            self.remove(name)?;
            self.add(name, value)
        }

        fn add(&mut self, name: &str, value: &[u8]) -> Result<()> {
            self.0.push((name.to_owned(), value.to_vec()));
            Ok(())
        }
    }

    #[test]
    fn edits_are_done_in_order_and_renames_take_all_values_along() {
        let config = serde_json::from_str(
            r#"{"remove": ["x-debug"], "rename": {"x-old": "x-new"}, "set": {"x-team": "payments"}, "add": {"x-tag": "b"}}"#,
        );
        let edits = Edits::new(config.expect("JSON")).expect("good edits");
        let pairs = [
            ("x-debug", "1"),
            ("x-old", "1"),
            ("x-old", "2"),
            ("x-new", "0"),
            ("x-team", "x"),
            ("x-tag", "a"),
        ];
        let mut message =
            Fake(pairs.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).into());
        edits.apply(&mut message).expect("a fake refuses nothing");
        let left: Vec<_> =
            message.0.iter().map(|(n, v)| format!("{n}={}", String::from_utf8_lossy(v))).collect();
        assert_eq!(left, ["x-tag=a", "x-new=1", "x-new=2", "x-team=payments", "x-tag=b"]);
    }

    #[test]
    fn names_and_values_that_cannot_be_are_refused() {
        let error = |config: &str| {
            Edits::new(serde_json::from_str(config).expect("JSON")).expect_err("refused").to_string()
        };
        assert!(error(r#"{"set": {"a b": "c"}}"#).contains("`a b` is not a header name"));
        assert!(error(r#"{"remove": [":path"]}"#).contains("is not a header name"));
        assert!(error(r#"{"set": {"a": "%{x"}}"#).contains("is not closed"));
    }

    #[test]
    fn the_host_of_a_request_can_be_set_and_nothing_else() {
        let new = |edits: &str| {
            let config = format!(r#"{{"request": {edits}}}"#);
            HeaderRewrite::new(serde_json::from_str(&config).expect("JSON"))
        };
        assert!(new(r#"{"set": {"host": "a.example"}}"#).is_ok());
        for edits in [r#"{"remove": ["Host"]}"#, r#"{"rename": {"x": "host"}}"#, r#"{"add": {"host": "b"}}"#]
        {
            let error = new(edits).expect_err("refused").to_string();
            assert!(error.contains("exactly one `host`"), "{error}");
        }
        let response = serde_json::from_str(r#"{"response": {"remove": ["host"]}}"#).expect("JSON");
        assert!(HeaderRewrite::new(response).is_ok(), "in a response it is a header like others");
    }
}
