//! Looks at the bytes of a connection, and changes them: upper case up, a prefix down.

use weir_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Hold the bytes from downstream until this byte comes.
    #[serde(default)]
    until: Option<char>,
    /// Close the connection when this text comes.
    #[serde(default)]
    forbidden: Option<String>,
}

struct Tap(Config);

#[weir_sdk::network_filter]
impl NetworkFilter for Tap {
    type Config = Config;

    fn new(config: Config) -> Result<Self> {
        Ok(Self(config))
    }

    fn on_downstream_data(&self, data: &mut Body, _: &mut ()) -> Result<ConnectionAction> {
        let bytes = data.read()?;
        let text = String::from_utf8_lossy(&bytes);
        if self.0.forbidden.as_ref().is_some_and(|word| text.contains(word.as_str())) {
            return Ok(ConnectionAction::Close);
        }
        if let Some(end) = self.0.until
            && !text.contains(end)
            && !data.is_last()
        {
            return Ok(ConnectionAction::Pause);
        }
        data.replace(text.to_uppercase())?;
        Ok(ConnectionAction::Continue)
    }

    fn on_upstream_data(&self, data: &mut Body, _: &mut ()) -> Result<ConnectionAction> {
        if !data.is_empty() {
            data.prepend("> ")?;
        }
        Ok(ConnectionAction::Continue)
    }
}
