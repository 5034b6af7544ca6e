//! Metrics with the official SDK: a counter, a gauge and a histogram, and what they say so far in response headers.

use proxy_wasm::hostcalls::{define_metric, get_metric, increment_metric, record_metric};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MetricType};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Trace);
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> { Box::new(MetricsRoot { metrics: None }) });
}}

#[derive(Clone, Copy)]
struct Metrics {
    requests: u32,
    last_size: u32,
    sizes: u32,
}

struct MetricsRoot {
    metrics: Option<Metrics>,
}

impl Context for MetricsRoot {}

impl RootContext for MetricsRoot {
    fn on_vm_start(&mut self, _: usize) -> bool {
        let define = |kind, name| define_metric(kind, name).ok();
        self.metrics = (|| {
            Some(Metrics {
                requests: define(MetricType::Counter, "official.requests")?,
                last_size: define(MetricType::Gauge, "official.last_size")?,
                sizes: define(MetricType::Histogram, "official.sizes")?,
            })
        })();
        self.metrics.is_some()
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Counting(self.metrics?)))
    }
}

struct Counting(Metrics);

impl Context for Counting {}

impl HttpContext for Counting {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let size = self.get_http_request_header("x-size").and_then(|size| size.parse().ok()).unwrap_or(0);
        let Self(metrics) = self;
        let done = [
            increment_metric(metrics.requests, 2),
            increment_metric(metrics.requests, -1),
            record_metric(metrics.last_size, size),
            increment_metric(metrics.last_size, -1),
            record_metric(metrics.sizes, size),
        ];
        log::info!("{done:?}");
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        let told = |metric| get_metric(metric).map_or_else(|status| format!("{status:?}"), |n| n.to_string());
        self.add_http_response_header("x-requests", &told(self.0.requests));
        self.add_http_response_header("x-last-size", &told(self.0.last_size));
        Action::Continue
    }
}
