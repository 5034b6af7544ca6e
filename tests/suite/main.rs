//! The suite. One file for each feature; the names of the tests are claims.

mod abi;
mod admin;
mod cache;
mod check;
mod codec;
mod conformance;
mod dns;
mod examples;
mod faults;
mod filters;
mod floors;
mod hardening;
mod http1;
mod http2;
mod lifecycle;
mod live_swap;
mod network_filters;
mod official;
mod passthrough;
mod plugins;
mod readme;
mod routes;
mod sdk;
mod tcp;
mod tls;
