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
    /// An HTTP/2 client reset more streams than it let be answered.
    Http2Resets = "http2_too_many_resets",
    /// An HTTP/2 client sent more PING, SETTINGS, PRIORITY and the like than its streams need.
    Http2Control = "http2_too_many_control_frames",
    /// An HTTP/2 header block came in too many pieces.
    Http2Continuations = "http2_too_many_continuations",
    /// An HTTP/2 header list was far larger than it may be.
    Http2HeaderList = "http2_header_list_too_large",
    /// An HTTP/2 client sent too many DATA frames with nothing or next to nothing in them.
    Http2Data = "http2_too_many_data_frames",
    /// Too many HTTP/2 streams were malformed, or more than there may be.
    Http2StreamErrors = "http2_too_many_stream_errors",
    /// An HTTP/2 client sent more than its window, or made Weir's too large.
    Http2FlowControl = "http2_flow_control_error",
    /// An HTTP/2 frame has a size that it may not have.
    Http2FrameSize = "http2_frame_size_error",
    /// An HTTP/2 header block cannot be decompressed.
    Http2Compression = "http2_compression_error",
    /// HTTP/2 is violated in some other way.
    Http2Protocol = "http2_protocol_error",
    /// The preface of HTTP/2, a header block or a frame did not come in time.
    Http2HeadTimeout = "http2_header_timeout",
    /// An HTTP/2 client did not take its answers.
    Http2Stalled = "http2_answers_not_taken",
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
