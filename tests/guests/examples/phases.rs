//! Notes every phase that it sees: in a header of the response what came before, in the log all of it.

use weir_sdk::prelude::*;

#[derive(Deserialize)]
struct Config {
    /// By what the notes are told apart when there are several.
    name: String,
}

struct Phases(String);

#[weir_sdk::http_filter]
impl HttpFilter for Phases {
    type Config = Config;
    type Stream = Vec<String>;

    fn new(config: Config) -> Result<Self> {
        Ok(Self(config.name))
    }

    fn on_request_headers(&self, request: &mut Request, notes: &mut Vec<String>) -> Result<Action> {
        notes.push(format!("request_headers {}", request.is_last()));
        request.add_header("x-seen-by", &self.0)?;
        Ok(Action::Continue)
    }

    fn on_request_body(&self, body: &mut Body, notes: &mut Vec<String>) -> Result<Action> {
        notes.push(format!("request_body {} {}", body.len(), body.is_last()));
        Ok(Action::Continue)
    }

    fn on_request_trailers(&self, trailers: &mut Trailers, notes: &mut Vec<String>) -> Result<Action> {
        notes.push(format!("request_trailers {}", trailers.headers()?.iter().count()));
        Ok(Action::Continue)
    }

    fn on_response_headers(&self, response: &mut Response, notes: &mut Vec<String>) -> Result<Action> {
        notes.push(format!("response_headers {}", response.status()?));
        response.add_header("x-passed", &self.0)?;
        response.add_header(&format!("x-notes-{}", self.0), notes.join("; "))?;
        Ok(Action::Continue)
    }

    fn on_response_body(&self, body: &mut Body, notes: &mut Vec<String>) -> Result<Action> {
        notes.push(format!("response_body {} {}", body.len(), body.is_last()));
        Ok(Action::Continue)
    }

    fn on_response_trailers(&self, trailers: &mut Trailers, notes: &mut Vec<String>) -> Result<Action> {
        notes.push(format!("response_trailers {}", trailers.headers()?.iter().count()));
        trailers.add_header("x-trailer-by", &self.0)?;
        Ok(Action::Continue)
    }

    fn on_log(&self, request: &Request, response: &Response, notes: &mut Vec<String>) {
        let path = request.path().unwrap_or_default();
        let status = response.status().unwrap_or_default();
        weir_sdk::info!("{}: {path} {status}: {}", self.0, notes.join("; "));
    }
}
