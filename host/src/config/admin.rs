//! `admin` and `runtime`: what concerns the process and not its traffic.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;

use crate::config::section::section;
use crate::config::value::Spanned;

section! {
    /// The admin API: readiness, metrics, what is in force, reload and drain.
    pub struct Admin {
        /// Where it listens. Anybody who can reach it can reload and drain: keep it on loopback.
        address: Spanned<SocketAddr>,
    }
}

section! {
    /// The process.
    pub struct Runtime {
        /// How many workers (threads that carry traffic). The default is one for each core.
        workers: Option<Spanned<NonZeroU16>>,
        /// The name servers to ask, as `address:port`. The default is what the system is configured with.
        dns_servers: Vec<SocketAddr>,
        /// Where the next process finds this one to take its sockets over (`weir run --takeover`): a Unix socket. The default
        /// is in `$XDG_RUNTIME_DIR/weir`, or else in `weir-UID` where temporary files are, with a name made from the path of
        /// the configuration file.
        takeover_socket: Option<PathBuf>,
    }
}
