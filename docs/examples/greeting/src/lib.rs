//! `greeting`: answers `GET /hello` by itself, and lets everything else pass.

use weir_sdk::prelude::*;

/// The filter's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Whom to greet.
    name: String,
}

/// The filter.
#[derive(Debug)]
struct Greeting {
    text: String,
}

/// What the plugin is built with. The demo builds it twice, with another greeting each time.
const GREETING: &str = match option_env!("GREETING") {
    Some(greeting) => greeting,
    None => "Hello",
};

#[weir_sdk::http_filter]
impl HttpFilter for Greeting {
    type Config = Config;

    fn new(config: Config) -> Result<Self> {
        Ok(Self { text: format!("{GREETING}, {}!\n", config.name) })
    }

    fn on_request_headers(&self, request: &mut Request, _: &mut ()) -> Result<Action> {
        if request.method()? == "GET" && request.path()? == "/hello" {
            return Ok(Action::Reply(Reply::new(200).body(self.text.as_str())));
        }
        Ok(Action::Continue)
    }
}
