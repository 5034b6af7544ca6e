//! Write Proxy-Wasm filters for Weir in Rust. What comes out is plain Proxy-Wasm 0.2.1: the same file runs in
//! Envoy.
//!
//! # From an empty folder
//!
//! The command `weir` makes a crate, builds it and tests it. It brings this SDK along, so that nothing else is needed but Rust:
//!
//! ```text
//! weir plugin new quota          # a crate, with this SDK in vendor/
//! weir plugin build quota        # quota/quota.wasm
//! weir plugin test quota         # runs the cases in quota/cases
//! cd quota && weir run --config gateway.yaml
//! ```
//!
//! What follows makes `quota/src/lib.rs` a filter that lets each tenant have so many requests in a minute, step by step.
//!
//! # A filter
//!
//! A filter is a type that is made from its configuration once, and is asked about every request (or every
//! connection: [`NetworkFilter`]). This one sets a header on requests that have none:
//!
//! ```
//! use weir_sdk::prelude::*;
//!
//! struct Quota;
//!
//! #[weir_sdk::http_filter]
//! impl HttpFilter for Quota {
//!     fn new(_: ()) -> Result<Self> {
//!         Ok(Self)
//!     }
//!
//!     fn on_request_headers(&self, request: &mut Request, _: &mut ()) -> Result<Action> {
//!         if request.header("x-tenant")?.is_none() {
//!             request.set_header("x-tenant", "nobody")?;
//!         }
//!         Ok(Action::Continue)
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! Only the callbacks that a filter implements are exported, so what it does not implement costs nothing. No
//! function here panics, whatever the host answers: an error that a callback returns is logged, and the request
//! is answered with 500 (a connection is closed).
//!
//! # Its configuration
//!
//! `type Config` is what serde makes of the configuration, and what `new` gets. An error of `new` refuses a configuration; the
//! host tells the operator why, and goes on with what served before. With [`schema::Schema`] the module carries the JSON Schema of
//! its configuration, by which `weir check` names the line of a slip.
//!
//! ```
//! use weir_sdk::prelude::*;
//!
//! #[derive(Deserialize, Schema)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     /// Requests in a minute.
//!     per_minute: u64,
//!     /// The header that says who it is.
//!     #[serde(default = "tenant")]
//!     header: String,
//! }
//!
//! fn tenant() -> String {
//!     "x-tenant".to_owned()
//! }
//!
//! struct Quota(Config);
//!
//! #[weir_sdk::http_filter]
//! impl HttpFilter for Quota {
//!     type Config = Config;
//!
//!     fn new(config: Config) -> Result<Self> {
//!         if config.per_minute == 0 {
//!             return Err(Error::new("`per_minute` is 0, which lets nobody in; leave the filter out, or say 1"));
//!         }
//!         Ok(Self(config))
//!     }
//!
//!     fn on_request_headers(&self, request: &mut Request, _: &mut ()) -> Result<Action> {
//!         // A header that is repeated has no one value.
//!         Ok(match request.headers()?.get_only(&self.0.header) {
//!             Some(_) => Action::Continue,
//!             None => Action::Reply(Reply::new(400).body("say who you are, once\n")),
//!         })
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! # Awaiting, counting, telling
//!
//! A method about messages may be an `async fn`. While it awaits something, the host holds its half of the exchange.
//! This one asks the cluster `tenants` whether there is such a tenant, unless it has been told before:
//!
//! ```
//! use std::time::Duration;
//!
//! use weir_sdk::metrics::{Counter, Static};
//! use weir_sdk::prelude::*;
//! use weir_sdk::{http, limits, shared_data};
//!
//! /// On `/metrics` it is `weir_plugin_custom_refused`.
//! static REFUSED: Static<Counter> = Static::new("refused");
//!
//! struct Quota {
//!     per_minute: u64,
//! }
//!
//! /// Whether there is such a tenant. What one worker has learnt, all know.
//! async fn is_known(tenant: &str) -> Result<bool> {
//!     let key = format!("tenant {tenant}");
//!     if let Some(known) = shared_data::get(&key)? {
//!         return Ok(known.value == b"yes");
//!     }
//!     let question = http::Request::get(format!("/tenants/{tenant}")).timeout(Duration::from_millis(250));
//!     let answer = http::call("tenants", question).await?;
//!     shared_data::set(&key, if answer.status() == 200 { "yes" } else { "no" })?;
//!     Ok(answer.status() == 200)
//! }
//!
//! // What the operator has to grant stands in the module, for `weir plugin inspect` and `weir check`.
//! #[weir_sdk::http_filter(grants(clusters = ["tenants"]))]
//! impl HttpFilter for Quota {
//!     fn new(_: ()) -> Result<Self> {
//!         Ok(Self { per_minute: 100 })
//!     }
//!
//!     async fn on_request_headers(&self, request: &mut Request, _: &mut ()) -> Result<Action> {
//!         let tenant = request.header("x-tenant")?.unwrap_or_default();
//!         if !tenant.bytes().all(|byte| byte.is_ascii_alphanumeric()) || !is_known(&tenant).await? {
//!             return Ok(Action::Reply(Reply::new(403).details("unknown tenant")));
//!         }
//!         // Over all workers.
//!         if limits::shared(&format!("quota {tenant}"), self.per_minute, Duration::from_secs(60))? {
//!             return Ok(Action::Continue);
//!         }
//!         REFUSED.increment();
//!         weir_sdk::info!(tenant = tenant; "over its quota");
//!         Ok(Action::Reply(Reply::new(429).header("retry-after", "60")))
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! [`http`] and [`grpc`] call clusters, [`timer`] waits, [`Body`] gives bodies whole or piece by piece, and [`join`],
//! [`race`], [`timeout`] and [`spawn`] put futures together. A [`queue`] hands over to other instances. [`Headers`] are right about those that are repeated. [`connection`] says who calls, over what, and by which route;
//! [`properties`] whatever else the host knows.
//!
//! # Its tests
//!
//! `weir plugin test` runs cases in YAML against the host of Weir, without a network and with a clock that stands still:
//!
//! ```yaml
//! filter: { grants: { clusters: [tenants] } }
//! cases:
//!   - name: a tenant that is not known is refused
//!     calls: [ { cluster: tenants, path: /tenants/ann, answer: { status: 404 } } ]
//!     request: { headers: { x-tenant: ann } }
//!     expect: { forwarded: false, response: { status: 403 }, details: unknown tenant }
//! ```
//!
//! The same host is a crate, `weir-testkit`, for `cargo test`: its documentation begins with such a test, of ten lines.
//!
//! Without the host, in plain unit tests, every host function answers [`Status::Unimplemented`]: keep what decides apart
//! from what asks, and test that natively.
//!
//! # Into a gateway
//!
//! Copy the `.wasm` into the folder that `plugins.directory` names, and put the filter into a listener's `filters`, with
//! its grants. Weir takes it, and any newer build, while it runs. [`http_filter`] and [`network_filter`] say what a filter may have.

mod body;
mod by_id;
pub mod connection;
mod error;
mod export;
mod fields;
mod filter;
mod flow;
pub mod grpc;
mod headers;
#[cfg(any(target_family = "wasm", test))]
mod heap;
pub mod http;
mod identity;
mod json;
pub mod limits;
pub mod log;
pub mod metrics;
mod network;
pub mod properties;
pub mod queue;
pub mod random;
mod raw;
mod reply;
mod runtime;
pub mod schema;
pub mod shared_data;
mod table;
pub mod task;
pub mod timer;

pub use body::{Body, Chunks};
pub use error::{Error, Result};
pub use filter::{Action, HttpFilter, Request, Response};
pub use headers::{Headers, Trailers};
pub use identity::SpiffeId;
pub use network::{Connection, ConnectionAction, NetworkFilter};
pub use reply::Reply;
pub use task::{join, join_all, race, spawn};
pub use timer::timeout;
pub use weir_abi::{LogLevel, PeerKind, Status};
pub use weir_sdk_macros::{http_filter, network_filter};

/// What almost every filter uses.
pub mod prelude {
    pub use serde::Deserialize;

    pub use crate::schema::Schema;

    pub use crate::{
        Action, Body, Connection, ConnectionAction, Error, Headers, HttpFilter, NetworkFilter, Reply,
        Request, Response, Result, Trailers,
    };
}

/// For the code that the macros generate. Not for filters.
#[doc(hidden)]
pub mod internal {
    pub use crate::flow::Side;
    pub use crate::raw::{allocate, initialize};
    pub use crate::runtime::{HttpRuntime, NetworkRuntime};
    pub use crate::schema::{Probe, Text, Unknown, bytes};
}
