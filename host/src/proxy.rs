//! The data plane: workers, and what they do with a connection.
//!
//! ```text
//! accept -> identify -> network filters -> relay            (TCP, SNI passthrough)
//!                                  \-> exchange             (HTTP)
//! ```

pub mod accept;
pub mod local;
pub mod plugin_host;
pub mod session;
pub mod tcp;
pub mod worker;
