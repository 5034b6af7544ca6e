//! The official SDK's `http_auth_random`: asks a cluster before it lets a request pass.

use std::time::Duration;

use log::info;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Trace);
    proxy_wasm::set_http_context(|_, _| -> Box<dyn HttpContext> { Box::new(HttpAuth) });
}}

struct HttpAuth;

impl HttpContext for HttpAuth {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let path = self.get_http_request_header(":path").unwrap_or_default();
        let headers = vec![(":method", "GET"), (":path", path.as_str()), (":authority", "auth.internal")];
        match self.dispatch_http_call("authority", headers, None, vec![], Duration::from_secs(1)) {
            Ok(_) => Action::Pause,
            Err(status) => {
                let body = format!("the call was refused: {status:?}");
                self.send_http_response(500, vec![], Some(body.as_bytes()));
                Action::Pause
            }
        }
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.set_http_response_header("Powered-By", Some("proxy-wasm"));
        Action::Continue
    }
}

impl Context for HttpAuth {
    fn on_http_call_response(&mut self, _: u32, headers: usize, body_size: usize, _: usize) {
        let status = self.get_http_call_response_header(":status");
        if let Some(body) = self.get_http_call_response_body(0, body_size)
            && body.first().is_some_and(|byte| byte % 2 == 0)
        {
            info!("Access granted.");
            self.add_http_request_header(
                "x-granted-by",
                &format!("{} of {headers}", status.unwrap_or_default()),
            );
            self.resume_http_request();
            return;
        }
        info!("Access forbidden.");
        self.send_http_response(403, vec![("Powered-By", "proxy-wasm")], Some(b"Access forbidden.\n"));
    }
}
