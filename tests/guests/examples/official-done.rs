//! A plugin of the official SDK that is not done when it is asked to end: it first tells the cluster `other` how many
//! requests it has seen.

use std::cell::Cell;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Trace);
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> { Box::new(Audited) });
}}

thread_local! {
    static SEEN: Cell<u32> = const { Cell::new(0) };
}

struct Audited;

impl Context for Audited {
    fn on_done(&mut self) -> bool {
        let path = format!("/seen/{}", SEEN.get());
        let headers = vec![(":method", "PUT"), (":path", path.as_str()), (":authority", "audit")];
        let called = self.dispatch_http_call("other", headers, None, vec![], Duration::from_secs(5));
        log::info!("asked to end after {} requests: {:?}", SEEN.get(), called.as_ref().map(drop));
        // Nobody would say that it is done when the call was refused.
        called.is_err()
    }

    fn on_http_call_response(&mut self, _: u32, _: usize, _: usize, _: usize) {
        let status = self.get_http_call_response_header(":status").unwrap_or_default();
        log::info!("done: the audit answered {status}");
        self.done();
    }
}

impl RootContext for Audited {
    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Counted))
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        log::info!("deleted after {} requests", SEEN.get());
    }
}

struct Counted;

impl Context for Counted {}

impl HttpContext for Counted {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        SEEN.set(SEEN.get() + 1);
        Action::Continue
    }
}
