//! HTTP: Weir's message types, its own strict HTTP/1 codec, and hyper for HTTP/2.

pub mod body;
pub mod h1;
pub mod h2;
pub mod marks;
pub mod message;
pub mod path;
pub mod peer;
pub mod pipe;
