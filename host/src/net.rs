//! Sockets and bytes, below any protocol that Weir speaks itself.

pub mod admission;
pub mod client_hello;
pub mod close;
pub mod connection;
pub mod hand_over;
pub mod inherit;
pub mod listen;
pub mod private;
pub mod proxy_protocol;
pub mod relay;
pub mod skew;
pub mod splice;
pub mod stream;
pub mod tls;
pub mod turn;
