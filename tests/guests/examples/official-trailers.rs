//! Trailers with the official SDK: it reads, adds, replaces and removes, in both directions.

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Trace);
    proxy_wasm::set_http_context(|_, _| -> Box<dyn HttpContext> { Box::new(Trailers) });
}}

struct Trailers;

impl Context for Trailers {}

impl HttpContext for Trailers {
    fn on_http_request_trailers(&mut self, count: usize) -> Action {
        let sum = self.get_http_request_trailer("x-sum").unwrap_or_default();
        log::info!("{count} request trailers, of which the sum is {sum}");
        self.add_http_request_trailer("x-checked", "by the official SDK");
        self.set_http_request_trailer("x-sum", Some("43"));
        self.remove_http_request_trailer("x-secret");
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, count: usize) -> Action {
        let names: Vec<String> =
            self.get_http_response_trailers().into_iter().map(|(name, _)| name).collect();
        log::info!("{count} response trailers: {}", names.join(" "));
        self.set_http_response_trailers(vec![("x-all", "new")]);
        Action::Continue
    }
}
