//! The filter that is measured (`benches/filter`), on the official crate: three headers read, one of which decides, and
//! two set.

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

proxy_wasm::main! {{
    proxy_wasm::set_http_context(|_, _| -> Box<dyn HttpContext> { Box::new(Bench) });
}}

struct Bench;

impl Context for Bench {}

impl HttpContext for Bench {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let role = self.get_http_request_header("x-role").unwrap_or_default();
        let tenant = self.get_http_request_header("x-tenant").unwrap_or_default();
        let agent = self.get_http_request_header("user-agent").unwrap_or_default();
        if role == "blocked" {
            self.send_http_response(403, vec![], Some(b"blocked\n"));
            return Action::Pause;
        }
        self.set_http_request_header("x-checked-tenant", Some(&tenant));
        self.set_http_request_header("x-checked-agent", Some(&agent));
        Action::Continue
    }
}
