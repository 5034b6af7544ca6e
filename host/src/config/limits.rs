//! The limits of an HTTP listener, and what it makes of requests that readers read in different ways.

use std::time::Duration;

use crate::config::section::{choice, section};
use crate::config::value::Size;

section! {
    /// The limits of an HTTP listener. The defaults are those of Envoy's edge guide where it names one.
    pub struct Limits {
        /// The request line and the headers of one request together; through HTTP/2 each header counts 32 bytes more.
        /// Responses of endpoints may have 60 KiB.
        max_header_bytes: Size = "60KiB",
        /// The headers of one request; 256 at most. Responses of endpoints may have 100.
        max_headers: u16 = "100",
        /// The target of the request line (or `:path`).
        max_target: Size = "16KiB",
        /// What a filter may hold of a body. More is answered by 413, or by 500 in a response.
        max_buffered_body: Size = "1MiB",
        /// How long the headers of a request may take; through HTTP/2 also the preface, and any frame but DATA. `0s` is
        /// no limit.
        request_headers_timeout: Duration = "10s",
        /// How long a request may take to arrive, its body included. `0s` is no limit.
        request_timeout: Duration = "5m",
        /// How long a connection may be idle between requests. `0s` is no limit.
        idle_timeout: Duration = "1h",
        /// How long an exchange may go without a byte in either direction. `0s` is no limit.
        stream_idle_timeout: Duration = "5m",
        /// The bytes that a client must send of a body in a second, on average over the grace period; fewer are answered by
        /// 408. Only the time counts in which Weir waits for the client, and bodies of unknown length through HTTP/2 (as of
        /// gRPC) are not watched. `0` is no limit.
        min_request_body_rate: Size = "240B",
        /// The bytes that a client must take of a body in a second, on average over the whole of it; whoever takes fewer is
        /// cut off. Only the time counts in which Weir waits for the client. `0` is no limit.
        min_response_body_rate: Size = "240B",
        /// How long a client may be slower.
        body_rate_grace_period: Duration = "5s",
        /// What a connection may read ahead, and what may wait to be written to it, before the other side is held up. Bulk that
        /// no filter looks at may wait in the kernel besides, up to 512 KiB.
        per_connection_buffer_limit: Size = "64KiB",
        /// What a client may send on one HTTP/2 stream before it is told to go on.
        initial_stream_window_size: Size = "64KiB",
        /// What it may send on all streams of a connection.
        initial_connection_window_size: Size = "1MiB",
        /// The streams that one HTTP/2 connection may have at a time; 4096 at most.
        max_concurrent_streams: u32 = "100",
        /// The streams that an HTTP/2 client may reset on one connection before their answer has ended, less those that
        /// were answered; at so many the connection is closed. `0` is no limit.
        max_stream_resets: u32 = "50",
        /// The streams of one HTTP/2 connection that may be malformed, or more than there may be at a time, less those that
        /// were answered; at so many the connection is closed. `0` is no limit.
        max_stream_errors: u32 = "100",
        /// The frames about the connection itself (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, unknown ones) that an HTTP/2
        /// client may send in ten seconds beyond those that its streams need. `0` is no limit.
        max_control_frames: u32 = "1000",
        /// What becomes of a request with an underscore in the name of a header: many applications cannot tell `a_b`
        /// from `a-b`.
        headers_with_underscores_action: Underscores = "reject",
        /// Whether paths are made canonical: dot segments are resolved, and what is percent-encoded is written in one
        /// way. A backslash, `%00` and a `%` without two digits are answered by 400.
        normalize_path: bool = "true",
        /// Whether several slashes in a path become one.
        merge_slashes: bool = "true",
        /// What becomes of `%2F` and `%5C` in a path: applications do not agree on whether they separate segments.
        path_with_escaped_slashes_action: EscapedSlashes = "unescape_and_redirect",
    }
}

choice! {
    /// What becomes of a header with an underscore in its name.
    pub enum Underscores {
        /// The request is answered by 400.
        Reject = "reject",
        /// The header is dropped.
        Drop = "drop",
        /// Nothing.
        Allow = "allow",
    }
}

choice! {
    /// What becomes of slashes that are percent-encoded.
    pub enum EscapedSlashes {
        /// They stay.
        Keep = "keep",
        /// The request is answered by 400.
        Reject = "reject",
        /// They become slashes, and the client is sent there by 307, before routes and filters: whoever stands between
        /// reads the same path then. gRPC, whose clients follow no redirects, is answered by `INTERNAL`.
        UnescapeAndRedirect = "unescape_and_redirect",
        /// They become slashes, and the request goes on.
        UnescapeAndForward = "unescape_and_forward",
    }
}
