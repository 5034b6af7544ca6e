//! Replies by itself, in the phase that the request names in `x-reply-in`, and makes another method of the
//! request when `x-method` says so.

use weir_sdk::prelude::*;

struct Replies;

fn reply(phase: &str) -> Action {
    let reply =
        Reply::new(418).header("x-phase", phase).body(format!("from {phase}")).details(format!("in_{phase}"));
    Action::Reply(reply)
}

#[weir_sdk::http_filter]
impl HttpFilter for Replies {
    type Stream = String;

    fn new(_: ()) -> Result<Self> {
        Ok(Self)
    }

    fn on_request_headers(&self, request: &mut Request, phase: &mut String) -> Result<Action> {
        if let Some(method) = request.header("x-method")? {
            request.set_header(":method", &method)?;
        }
        *phase = request.header("x-reply-in")?.unwrap_or_default();
        match phase.as_str() {
            "request_headers" => Ok(reply("request_headers")),
            "error" => Err(Error::new("on purpose")),
            "never" => Ok(Action::Pause),
            _ => Ok(Action::Continue),
        }
    }

    fn on_request_body(&self, body: &mut Body, phase: &mut String) -> Result<Action> {
        Ok(if phase == "request_body" && body.is_last() { reply("request_body") } else { Action::Continue })
    }

    fn on_response_headers(&self, response: &mut Response, phase: &mut String) -> Result<Action> {
        response.set_header("x-passed-replies", "yes")?;
        Ok(if phase == "response_headers" { reply("response_headers") } else { Action::Continue })
    }

    fn on_response_body(&self, _: &mut Body, phase: &mut String) -> Result<Action> {
        Ok(if phase == "response_body" { reply("response_body") } else { Action::Continue })
    }
}
