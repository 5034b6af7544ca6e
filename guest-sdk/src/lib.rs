//! Write Proxy-Wasm filters for Weir in Rust. What comes out is plain Proxy-Wasm 0.2.1: the same file runs in
//! Envoy.
//!
//! A filter is a type that is made from its configuration once, and is asked about every request (or every
//! connection). This one sets a header on requests that have none:
//!
//! ```
//! use weir_sdk::prelude::*;
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     team: String,
//! }
//!
//! struct Team(String);
//!
//! #[weir_sdk::http_filter]
//! impl HttpFilter for Team {
//!     type Config = Config;
//!
//!     fn new(config: Config) -> Result<Self> {
//!         Ok(Self(config.team))
//!     }
//!
//!     fn on_request_headers(&self, request: &mut Request, _: &mut ()) -> Result<Action> {
//!         if request.header("x-team")?.is_none() {
//!             request.set_header("x-team", &self.0)?;
//!         }
//!         Ok(Action::Continue)
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! Build it with `cargo build --release --target wasm32-wasip1` as a `cdylib`, and copy the `.wasm` into Weir's
//! plugin directory.
//!
//! Only the callbacks that a filter implements are exported, so what it does not implement costs nothing. No
//! function here panics, whatever the host answers: an error that a callback returns is logged, and the request
//! is answered with 500 (a connection is closed).

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
pub mod http;
mod identity;
mod json;
pub mod limits;
pub mod log;
pub mod metrics;
mod network;
pub mod properties;
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
    pub use crate::raw::allocate;
    pub use crate::runtime::{HttpRuntime, NetworkRuntime};
    pub use crate::schema::{Probe, Text, Unknown, bytes};
}
