//! The suite. One file for each feature; the names of the tests are claims.

mod dns;
mod http1;
mod http2;
mod live_swap;
mod passthrough;
mod routes;
mod tcp;
mod tls;
