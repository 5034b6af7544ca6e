//! The data plane: workers, and what they do with a connection.
//!
//! ```text
//! accept -> identify -> network filters -> relay            (TCP, SNI passthrough)
//!                                  \-> exchange             (HTTP)
//! ```

pub mod accept;
pub mod behind_filters;
pub mod callout;
pub mod downstream;
pub mod exchange;
pub mod filtered;
pub mod forward;
pub mod forwarded;
pub mod grpc;
pub mod http;
pub mod live;
pub mod local;
pub mod plugin_host;
pub mod pump;
pub mod rate;
pub mod record;
pub mod redirect;
pub mod reply;
pub mod request;
pub mod retry;
pub mod session;
pub mod tcp;
pub mod worker;
