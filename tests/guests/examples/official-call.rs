//! Calls of the official SDK with all that a request and its answer can have, in both directions of an exchange: the
//! request is held until the cluster `other` has seen its path, the response until it has seen the status.

use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Trace);
    proxy_wasm::set_http_context(|_, _| -> Box<dyn HttpContext> { Box::new(Calling { response: false }) });
}}

struct Calling {
    /// Whether the response is held, and no longer the request.
    response: bool,
}

impl Calling {
    fn ask(&self, path: &str, body: &str) -> Action {
        let headers =
            vec![(":method", "POST"), (":path", path), (":authority", "authority"), ("x-asks", "official")];
        let trailers = vec![("x-end", "of the question")];
        let timeout = Duration::from_secs(5);
        match self.dispatch_http_call("other", headers, Some(body.as_bytes()), trailers, timeout) {
            Ok(_) => Action::Pause,
            Err(status) => {
                log::error!("the call was refused: {status:?}");
                Action::Continue
            }
        }
    }
}

impl HttpContext for Calling {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        self.ask("/request", &self.get_http_request_header(":path").unwrap_or_default())
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.response = true;
        self.ask("/response", &self.get_http_response_header(":status").unwrap_or_default())
    }
}

impl Context for Calling {
    fn on_http_call_response(&mut self, _: u32, headers: usize, body_size: usize, trailers: usize) {
        let told = headers == self.get_http_call_response_headers().len()
            && trailers == self.get_http_call_response_trailers().len();
        // In Envoy a map of no trailers cannot be asked for one.
        let end = (trailers > 0).then(|| self.get_http_call_response_trailer("x-end")).flatten();
        let answer = format!(
            "{} {} {} {}",
            self.get_http_call_response_header(":status").unwrap_or_default(),
            self.get_http_call_response_body(0, body_size)
                .map(|body| String::from_utf8_lossy(&body).into_owned())
                .unwrap_or_default(),
            end.unwrap_or_default(),
            if told { "as counted" } else { "miscounted" }
        );
        if self.response {
            self.set_http_response_header("x-answer", Some(&answer));
            self.resume_http_response();
        } else {
            self.set_http_request_header("x-answer", Some(&answer));
            self.resume_http_request();
        }
    }
}
