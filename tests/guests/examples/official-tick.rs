//! The timer of the official SDK: it lets go what has been held since the last tick, and counts its ticks where every
//! stream sees them.

use std::cell::RefCell;
use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Trace);
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> { Box::new(Ticking { ticks: 0 }) });
}}

thread_local! {
    /// Streams that wait for the next tick.
    static HELD: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

struct Ticking {
    ticks: u32,
}

impl Context for Ticking {}

impl RootContext for Ticking {
    fn on_configure(&mut self, _: usize) -> bool {
        self.set_tick_period(Duration::from_millis(10));
        true
    }

    fn on_tick(&mut self) {
        self.ticks += 1;
        for context in HELD.take() {
            // A stream may be gone by now.
            if hostcalls::set_effective_context(context).is_ok() {
                let _ = hostcalls::set_map_value(
                    proxy_wasm::types::MapType::HttpRequestHeaders,
                    "x-tick",
                    Some(&self.ticks.to_string()),
                );
                let _ = hostcalls::resume_http_request();
            }
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, context: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Held { context }))
    }
}

struct Held {
    context: u32,
}

impl Context for Held {}

impl HttpContext for Held {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        HELD.with_borrow_mut(|held| held.push(self.context));
        Action::Pause
    }
}
