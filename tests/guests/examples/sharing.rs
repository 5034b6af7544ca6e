//! Counts requests in shared data and in metrics, ticks, and shows properties.

use std::time::Duration;

use weir_sdk::metrics::{Counter, Gauge, Histogram};
use weir_sdk::prelude::*;
use weir_sdk::{properties, shared_data};

struct Sharing {
    requests: Counter,
    open: Gauge,
    sizes: Histogram,
}

#[weir_sdk::http_filter]
impl HttpFilter for Sharing {
    const TICK: Duration = Duration::from_millis(20);

    fn new(_: ()) -> Result<Self> {
        Ok(Self {
            requests: Counter::define("requests_seen")?,
            open: Gauge::define("requests_open")?,
            sizes: Histogram::define("path_length")?,
        })
    }

    fn on_request_headers(&self, request: &mut Request, _: &mut ()) -> Result<Action> {
        self.requests.increment();
        self.open.add(1);
        self.sizes.record(request.path()?.len() as u64);
        shared_data::update("count", |count| {
            let count = count.and_then(|count| String::from_utf8_lossy(count).parse().ok()).unwrap_or(0_u64);
            (count + 1).to_string().into_bytes()
        })?;
        properties::set(&["sharing", "note"], "kept")?;
        Ok(Action::Continue)
    }

    fn on_response_headers(&self, response: &mut Response, _: &mut ()) -> Result<Action> {
        let text = |path: &[&str]| properties::text(path).map(Option::unwrap_or_default);
        for (name, value) in [
            ("x-count", shared_data::get("count")?.map(|count| count.value).unwrap_or_default()),
            ("x-ticks", shared_data::get("ticks")?.map(|ticks| ticks.value).unwrap_or_default()),
            ("x-note", text(&["sharing", "note"])?.into_bytes()),
            ("x-method", text(&["request", "method"])?.into_bytes()),
            ("x-url-path", text(&["request", "url_path"])?.into_bytes()),
            ("x-agent", text(&["request", "headers", "user-agent"])?.into_bytes()),
            ("x-source", text(&["source", "address"])?.into_bytes()),
            ("x-route", text(&["route_name"])?.into_bytes()),
            ("x-cluster", text(&["cluster_name"])?.into_bytes()),
            ("x-upstream", text(&["upstream", "address"])?.into_bytes()),
            ("x-plugin", text(&["plugin_name"])?.into_bytes()),
            ("x-code", properties::number(&["response", "code"])?.unwrap_or(0).to_string().into_bytes()),
            ("x-port", properties::number(&["source", "port"])?.unwrap_or(0).to_string().into_bytes()),
            ("x-unknown", text(&["no", "such", "property"])?.into_bytes()),
        ] {
            response.set_header(name, value)?;
        }
        Ok(Action::Continue)
    }

    fn on_log(&self, _: &Request, _: &Response, _: &mut ()) {
        self.open.add(-1);
    }

    fn on_tick(&self) {
        let ticked = shared_data::update("ticks", |ticks| {
            let ticks = ticks.and_then(|ticks| String::from_utf8_lossy(ticks).parse().ok()).unwrap_or(0_u64);
            (ticks + 1).to_string().into_bytes()
        });
        if let Err(error) = ticked {
            weir_sdk::warn!("{error}");
        }
    }
}
