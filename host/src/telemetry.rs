//! What Weir tells of itself: metrics, the access log, and its own log.

pub mod access_log;
pub mod metrics;
pub mod seldom;
pub mod sink;
pub mod trace;
