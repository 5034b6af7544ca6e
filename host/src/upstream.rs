//! Upstream: clusters, connections to their endpoints, and names.

pub mod clients;
pub mod cluster;
pub mod connection;
pub mod discovery;
pub mod local;
pub mod outlier;
pub mod retry;
