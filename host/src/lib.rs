//! Weir: a mesh gateway and sidecar that runs sandboxed Proxy-Wasm plugins on every connection and request.

pub mod clock;
pub mod config;
pub mod drain;
pub mod http;
pub mod net;
pub mod plugin;
pub mod telemetry;
