//! Why Weir closes a connection instead of serving it.

use crate::net::admission::Full;
use crate::net::client_hello::HelloError;
use crate::net::proxy_protocol::ProxyError;

/// Declares the reasons with their words.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)+) => {
        /// Why Weir closes a connection instead of serving it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum CloseReason { $($(#[$doc])* $variant,)+ }

        impl CloseReason {
            /// All reasons.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// As metrics and logs have it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

reasons! {
    /// Whoever connected is not among those of whom a PROXY protocol header is expected.
    ProxyUnlisted = "proxy_protocol_unlisted_peer",
    /// The first bytes are no PROXY protocol header.
    ProxyMissing = "proxy_protocol_missing",
    /// The PROXY protocol header is malformed.
    ProxyMalformed = "proxy_protocol_malformed",
    /// The PROXY protocol header is longer than it may be.
    ProxyTooLong = "proxy_protocol_too_long",
    /// The PROXY protocol header did not come in time.
    ProxyTimeout = "proxy_protocol_timeout",
    /// The proxy went before its PROXY protocol header was complete.
    ProxyCut = "proxy_protocol_cut",
    /// The first bytes are no TLS.
    NotTls = "not_tls",
    /// The ClientHello is malformed.
    MalformedHello = "malformed_client_hello",
    /// The ClientHello is longer than 16 KiB.
    HelloTooLong = "client_hello_too_long",
    /// The ClientHello did not come in time.
    HelloTimeout = "client_hello_timeout",
    /// The client went before its ClientHello was complete.
    HelloCut = "client_hello_cut",
    /// The client named no server.
    NoServerName = "no_server_name",
    /// The client named no host that can be: an address, a bad name, several.
    InvalidServerName = "invalid_server_name",
    /// The TLS handshake failed.
    Handshake = "handshake_failure",
    /// The TLS handshake did not end in time.
    HandshakeTimeout = "handshake_timeout",
    /// A filter closed it.
    Filter = "closed_by_filter",
    /// A filter failed that may not.
    FilterFailure = "filter_failure",
    /// Nothing chose a cluster.
    NoCluster = "no_cluster",
    /// A filter chose a cluster that there is not.
    UnknownCluster = "unknown_cluster",
    /// The cluster has no endpoints.
    NoEndpoints = "no_endpoints",
    /// No connection to the endpoint.
    ConnectFailure = "connect_failure",
    /// No connection to the endpoint in time.
    ConnectTimeout = "connect_timeout",
    /// The listener has as many connections as it may.
    ListenerFull = "listener_connection_limit",
    /// The client has as many connections as it may.
    ClientFull = "client_connection_limit",
    /// The process has as many connections as it may.
    ProcessFull = "connection_limit",
    /// The process has too little of something left.
    Overload = "overload",
    /// Nothing came for too long.
    Idle = "idle_timeout",
}

impl From<Full> for CloseReason {
    fn from(full: Full) -> Self {
        match full {
            Full::Listener => Self::ListenerFull,
            Full::Client => Self::ClientFull,
        }
    }
}

impl From<ProxyError> for CloseReason {
    fn from(error: ProxyError) -> Self {
        match error {
            ProxyError::Missing => Self::ProxyMissing,
            ProxyError::Malformed => Self::ProxyMalformed,
            ProxyError::TooLong => Self::ProxyTooLong,
        }
    }
}

impl From<HelloError> for CloseReason {
    fn from(error: HelloError) -> Self {
        match error {
            HelloError::NotTls => Self::NotTls,
            HelloError::Malformed => Self::MalformedHello,
            HelloError::TooLong => Self::HelloTooLong,
            HelloError::InvalidServerName => Self::InvalidServerName,
        }
    }
}
