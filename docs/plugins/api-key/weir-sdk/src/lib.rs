//! A check of API keys with `weir-sdk`: who has a key may pass, and the upstream is told who it is.

use std::collections::BTreeMap;

use weir_sdk::prelude::*;

/// The configuration.
#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The request header that carries the key.
    #[serde(default = "usual")]
    header: String,
    /// The keys, by the names of those who have them.
    keys: BTreeMap<String, String>,
}

fn usual() -> String {
    "x-api-key".to_owned()
}

/// A key that is shorter can be guessed.
const SHORTEST: usize = 16;

/// The plugin.
#[derive(Debug)]
struct ApiKey(Config);

#[weir_sdk::http_filter(grants(headers = "write", reply = true))]
impl HttpFilter for ApiKey {
    type Config = Config;

    fn new(config: Config) -> Result<Self> {
        if config.keys.is_empty() {
            return Err(Error::new("`keys` is empty, so that nobody could come in; add a key"));
        }
        if let Some((name, _)) = config.keys.iter().find(|(_, key)| key.len() < SHORTEST) {
            return Err(Error::new(format!("the key of `{name}` has less than {SHORTEST} bytes")));
        }
        Ok(Self(config))
    }

    fn on_request_headers(&self, request: &mut Request, _: &mut ()) -> Result<Action> {
        let headers = request.headers()?;
        let mut carried = headers.get_all(&self.0.header);
        let name = match (carried.next(), carried.next()) {
            (None, _) => return Ok(refusal()),
            (Some(_), Some(_)) => {
                weir_sdk::warn!("several keys");
                return Ok(refusal());
            }
            (Some(key), None) => self.owner(key),
        };
        let Some(name) = name else {
            weir_sdk::warn!("unknown key");
            return Ok(refusal());
        };
        request.remove_header(&self.0.header)?;
        request.set_header("x-user", name)?;
        Ok(Action::Continue)
    }
}

impl ApiKey {
    /// Whose key it is. All are compared, so that the time does not tell which one is nearly right.
    fn owner(&self, key: &[u8]) -> Option<&str> {
        let known = self.0.keys.iter();
        known.fold(None, |found, (name, known)| if same(known.as_bytes(), key) { Some(name) } else { found })
    }
}

fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

fn refusal() -> Action {
    Action::Reply(Reply::new(401).header("www-authenticate", "ApiKey").body("unauthorized\n"))
}
