//! Weir's own HTTP/1 codec, strict by construction (RFC 9112).
//!
//! One [`Connection`] serves either side. `head` and `target` turn bytes into messages and refuse what is ambiguous,
//! for the reasons in `refused`; `chunked` and `reader` take bodies apart; `encode` and `writer` put messages together.
//! Nothing here knows what a message is for.

mod chunked;
pub mod connection;
mod encode;
pub mod head;
mod reader;
mod refused;
mod target;
mod writer;

pub use connection::Connection;
pub use head::{Limits, RequestHead, ResponseHead};
pub use reader::BodyError;
pub use refused::HeadError;
pub use target::check_authority;

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
