//! Weir: a mesh gateway and sidecar that runs sandboxed Proxy-Wasm plugins on every connection and request.

pub mod admin;
pub mod allocator;
pub mod app;
pub mod author;
pub mod balance;
pub mod check;
pub mod clock;
pub mod config;
pub mod drain;
pub mod http;
pub mod net;
pub mod overload;
pub mod plugin;
pub mod proxy;
pub mod reload;
pub mod report;
pub mod route;
pub mod snapshot;
pub mod telemetry;
pub mod testbed;
pub mod upstream;
