//! What several of the standard filters are made of: networks, callers, keys in requests, durations. Nothing here
//! calls the host, so that all of it is tested without one.

pub mod address;
pub mod caller;
pub mod carried;
pub mod duration;
pub mod text;
