//! Weir's own HTTP/1 codec, strict by construction (RFC 9112).
//!
//! One [`Connection`] serves either side. `head` turns bytes into messages and refuses what is ambiguous;
//! `chunked` and `reader` take bodies apart; `encode` and `writer` put messages together. Nothing here knows what a
//! message is for.

mod chunked;
pub mod connection;
mod encode;
pub mod head;
mod reader;
mod writer;

pub use connection::Connection;
pub use head::{HeadError, Limits, RequestHead, ResponseHead};
pub use reader::BodyError;

/// How long a message's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// There is none.
    None,
    /// So many bytes.
    Known(u64),
    /// It is told as it comes: chunked, or until the connection ends.
    Unknown,
}

#[cfg(test)]
mod tests;
