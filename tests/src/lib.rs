//! The harness of the test suite: a real gateway as a process of its own, real upstreams, real TLS, plugins built
//! from source. Ports are always 0, and what is waited for is an event, never a span of time.

pub mod envoy;
pub mod frames;
pub mod gateway;
pub mod guests;
pub mod hostile;
pub mod http;
pub mod languages;
pub mod made_up;
pub mod messages;
pub mod parity;
pub mod proxied;
pub mod puppet;
pub mod soak;
pub mod tls;
pub mod trampoline;
pub mod upstream;
pub mod wait;
pub mod websocket;

pub use gateway::{Gateway, Setup};
