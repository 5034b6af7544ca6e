//! A check of API keys with the official crate, `proxy-wasm`: who has a key may pass, and the upstream is told who
//! it is.

use std::collections::BTreeMap;
use std::rc::Rc;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MapType, Status};
use serde::Deserialize;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> { Box::<Root>::default() });
}}

/// The configuration.
#[derive(Deserialize)]
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

impl Config {
    fn read(json: &[u8]) -> Result<Self, String> {
        let config: Self = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if config.keys.is_empty() {
            return Err("`keys` is empty, so that nobody could come in; add a key".to_owned());
        }
        if let Some((name, _)) = config.keys.iter().find(|(_, key)| key.len() < SHORTEST) {
            return Err(format!("the key of `{name}` has less than {SHORTEST} bytes"));
        }
        Ok(config)
    }
}

#[derive(Default)]
struct Root {
    config: Option<Rc<Config>>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        match Config::read(&self.get_plugin_configuration().unwrap_or_default()) {
            Ok(config) => {
                self.config = Some(Rc::new(config));
                true
            }
            Err(error) => {
                log::error!("{error}");
                false
            }
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(ApiKey { config: Rc::clone(self.config.as_ref()?) }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// The plugin, in one request.
struct ApiKey {
    config: Rc<Config>,
}

impl Context for ApiKey {}

impl HttpContext for ApiKey {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        // The traits' own functions panic on a status that they do not expect; these return it.
        match self.check() {
            Ok(action) => action,
            Err(status) => {
                log::error!("the host answered {status:?}");
                self.send_http_response(500, vec![], None);
                Action::Pause
            }
        }
    }
}

impl ApiKey {
    fn check(&self) -> Result<Action, Status> {
        // As bytes: what is not UTF-8 would be a panic as a `String`.
        let headers = hostcalls::get_map_bytes(MapType::HttpRequestHeaders)?;
        let is_key = |name: &str| name.eq_ignore_ascii_case(&self.config.header);
        let mut carried = headers.iter().filter(|(name, _)| is_key(name)).map(|(_, value)| value);
        let name = match (carried.next(), carried.next()) {
            (None, _) => return self.refuse(),
            (Some(_), Some(_)) => {
                log::warn!("several keys");
                return self.refuse();
            }
            (Some(key), None) => self.owner(key),
        };
        let Some(name) = name else {
            log::warn!("unknown key");
            return self.refuse();
        };
        hostcalls::remove_map_value(MapType::HttpRequestHeaders, &self.config.header)?;
        hostcalls::set_map_value(MapType::HttpRequestHeaders, "x-user", Some(name))?;
        Ok(Action::Continue)
    }

    /// Whose key it is. All are compared, so that the time does not tell which one is nearly right.
    fn owner(&self, key: &[u8]) -> Option<&str> {
        let known = self.config.keys.iter();
        known.fold(None, |found, (name, known)| if same(known.as_bytes(), key) { Some(name) } else { found })
    }

    fn refuse(&self) -> Result<Action, Status> {
        let headers = vec![("www-authenticate", "ApiKey")];
        hostcalls::send_http_response(401, headers, Some(b"unauthorized\n"))?;
        Ok(Action::Pause)
    }
}

fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}
