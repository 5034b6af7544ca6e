//! Reads bodies in the way that the request names in `x-read`, and changes them.

use weir_sdk::prelude::*;
use weir_sdk::{Chunks, http, properties};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The most that is read of a body, in bytes.
    #[serde(default = "limit")]
    limit: usize,
    /// Headers wait until the body has been read.
    #[serde(default)]
    hold_headers: bool,
}

fn limit() -> usize {
    1000
}

struct Reads(Config);

/// What the cluster `other` makes of a text.
async fn ask(text: Vec<u8>) -> Result<Vec<u8>> {
    Ok(http::call("other", http::Request::post("/piece", text)).await?.into_body())
}

/// Puts every piece in upper case, and marks where it ends.
async fn shout(mut pieces: Chunks<'_>, asks: bool) -> Result<usize> {
    let mut count = 0;
    while let Some(piece) = pieces.next().await? {
        count += 1;
        let piece = if asks { ask(piece).await? } else { piece };
        pieces.replace([&piece.to_ascii_uppercase(), b"|".as_slice()].concat())?;
    }
    Ok(count)
}

#[weir_sdk::http_filter]
impl HttpFilter for Reads {
    type Config = Config;

    fn new(config: Config) -> Result<Self> {
        Ok(Self(config))
    }

    async fn on_request(&self, request: &mut Request, body: &mut Body, _: &mut ()) -> Result<Action> {
        let mode = request.header("x-read")?.unwrap_or_default();
        properties::set(&["reads_mode"], &mode)?;
        if self.0.hold_headers {
            body.hold_headers();
        }
        // Hosts send headers before a body that is read: what is to be changed has no length yet.
        request.remove_header("content-length")?;
        match mode.as_str() {
            "all" => {
                let text = body.read_all(self.0.limit).await?;
                body.replace([&text.to_ascii_uppercase(), b" (whole)".as_slice()].concat())?;
            }
            "all-then-ask" => {
                let text = body.read_all(self.0.limit).await?;
                body.replace(ask(text).await?)?;
            }
            "ask-then-all" => {
                let answer = ask(b"first".to_vec()).await?;
                request.set_header("x-first", answer)?;
                let text = body.read_all(self.0.limit).await?;
                body.replace([&text, b" (behind)".as_slice()].concat())?;
            }
            "all-then-headers" => {
                let text = body.read_all(self.0.limit).await?;
                request.set_header("x-read", text.len().to_string())?;
            }
            "all-then-deny" => {
                let text = body.read_all(self.0.limit).await?;
                return Ok(Action::Reply(Reply::new(403).body(text)));
            }
            "pieces" => {
                shout(body.chunks(), false).await?;
            }
            "pieces-asking" => {
                shout(body.chunks(), true).await?;
            }
            _ => {}
        }
        Ok(Action::Continue)
    }

    async fn on_response(&self, response: &mut Response, body: &mut Body, _: &mut ()) -> Result<Action> {
        let mode = properties::text(&["reads_mode"])?.unwrap_or_default();
        response.set_header("x-mode", &mode)?;
        match mode.as_str() {
            "response" => {
                let text = body.read_all(self.0.limit).await?;
                body.replace(ask(text).await?)?;
            }
            "response-pieces" => {
                shout(body.chunks(), false).await?;
            }
            _ => {}
        }
        Ok(Action::Continue)
    }
}
