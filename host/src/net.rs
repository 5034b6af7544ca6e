//! Sockets and bytes, below any protocol that Weir speaks itself.

pub mod client_hello;
pub mod connection;
pub mod listen;
pub mod relay;
