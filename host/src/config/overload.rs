//! `overload`: what the process may use, and from where on it sheds load.

use std::time::Duration;

use crate::config::section::section;
use crate::config::value::{Percent, Size};

section! {
    /// What the process may use of memory, descriptors and time, and what it gives up by degrees as it comes near: first
    /// keep-alive, then new requests, then new connections, then the streams that hold the most. It takes all of it up
    /// again when there is room.
    pub struct Overload {
        /// The connections that all listeners together may have at a time; one more is reset. `0` is no limit.
        max_connections: u32 = "50000",
        /// The memory that the process may use. The default is what its control group may use; without one, there is no
        /// limit.
        max_memory: Option<Size>,
        /// The descriptors that the process may have open. The default is its `RLIMIT_NOFILE`.
        max_descriptors: Option<u32>,
        /// How late the workers may be with what they have to do, even the one that is least. `0s` is no limit.
        max_loop_delay: Duration = "2s",
        /// How often it is looked.
        refresh_interval: Duration = "250ms",
        /// From which share of any of these on connections end with the answer to what was asked for on them.
        disable_keepalive: Percent = "92%",
        /// From which share on new requests are answered by 503.
        stop_accepting_requests: Percent = "95%",
        /// From which share on new connections are reset, and idle ones closed.
        stop_accepting_connections: Percent = "97%",
        /// From which share of memory or descriptors on the streams that hold the most are reset, fifty at a time on each
        /// worker.
        reset_streams: Percent = "99%",
    }
}
