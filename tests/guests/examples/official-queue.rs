//! Shared queues with the official SDK. Configured with `consume`, it registers the queue `visits` and logs what is in
//! it; configured with `produce VM`, it puts the path of each request into the queue of that VM.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Trace);
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> { Box::new(QueueRoot { vm: None }) });
}}

const QUEUE: &str = "visits";

struct QueueRoot {
    /// The VM whose queue is filled.
    vm: Option<String>,
}

impl Context for QueueRoot {}

impl RootContext for QueueRoot {
    fn on_configure(&mut self, _: usize) -> bool {
        let config =
            self.get_plugin_configuration().and_then(|c| String::from_utf8(c).ok()).unwrap_or_default();
        if config == "consume" {
            let queue = self.register_shared_queue(QUEUE);
            log::info!("queue {} is registered", if queue == 0 { "0, which is none," } else { QUEUE });
        }
        self.vm = config.strip_prefix("produce").map(|vm| vm.trim().to_owned());
        true
    }

    fn on_queue_ready(&mut self, queue: u32) {
        loop {
            match self.dequeue_shared_queue(queue) {
                Ok(Some(visit)) => log::info!("taken: {}", String::from_utf8_lossy(&visit)),
                // Another instance may have taken it.
                Ok(None) => return,
                Err(status) => return log::error!("the queue cannot be read: {status:?}"),
            }
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Producing { vm: self.vm.clone() }))
    }
}

struct Producing {
    vm: Option<String>,
}

impl Context for Producing {}

impl HttpContext for Producing {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let Some(vm) = &self.vm else { return Action::Continue };
        let path = self.get_http_request_header(":path").unwrap_or_default();
        let put = match self.resolve_shared_queue(vm, QUEUE) {
            Some(queue) => format!("{:?}", self.enqueue_shared_queue(queue, Some(path.as_bytes()))),
            None => "no such queue".to_owned(),
        };
        self.set_http_request_header("x-put", Some(&put));
        Action::Continue
    }
}
