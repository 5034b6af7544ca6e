//! Holds bodies and changes them.

use weir_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Hold the request's body until it is whole, and put it in upper case.
    #[serde(default)]
    hold_request: bool,
    /// Hold the response's body until it is whole, and put it between brackets.
    #[serde(default)]
    hold_response: bool,
    /// Put this before every piece of the response's body.
    prepend: Option<String>,
}

struct Bodies(Config);

#[weir_sdk::http_filter]
impl HttpFilter for Bodies {
    type Config = Config;

    fn new(config: Config) -> Result<Self> {
        Ok(Self(config))
    }

    fn on_request_body(&self, body: &mut Body, _: &mut ()) -> Result<Action> {
        if !self.0.hold_request {
            return Ok(Action::Continue);
        }
        if !body.is_last() {
            return Ok(Action::Pause);
        }
        let text = String::from_utf8_lossy(&body.read()?).to_uppercase();
        body.replace(format!("{text} ({} bytes)", text.len()))?;
        Ok(Action::Continue)
    }

    fn on_response_body(&self, body: &mut Body, _: &mut ()) -> Result<Action> {
        if let Some(prefix) = &self.0.prepend
            && !body.is_empty()
        {
            body.prepend(prefix)?;
        }
        if self.0.hold_response {
            if !body.is_last() {
                return Ok(Action::Pause);
            }
            body.prepend("[")?;
            body.append("]")?;
        }
        Ok(Action::Continue)
    }
}
