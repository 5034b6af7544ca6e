//! The suite. One file for each feature; the names of the tests are claims.

mod dns;
mod faults;
mod filters;
mod http1;
mod http2;
mod live_swap;
mod official;
mod passthrough;
mod plugins;
mod routes;
mod tcp;
mod tls;
