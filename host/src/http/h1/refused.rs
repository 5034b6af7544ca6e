//! Why a head is refused.

use http::StatusCode;

/// Declares the reasons: the word for metrics and logs, and what the client is told.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, $message:literal;)+) => {
        /// Why a head is refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
        pub enum HeadError { $($(#[$doc])* #[error($message)] $variant,)+ }

        impl HeadError {
            /// All of them.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// As metrics and logs have it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

reasons! {
    /// A line ends in LF alone.
    BareLf = "bare_lf", "bare LF";
    /// A CR without its LF.
    BareCr = "bare_cr", "bare CR";
    /// A NUL.
    Nul = "nul_byte", "NUL";
    /// A field goes on in a second line (RFC 9112 section 5.2).
    Folded = "obs_fold", "folded header field";
    /// Whitespace before the colon of a field (RFC 9112 section 5.1).
    SpaceBeforeColon = "space_before_colon", "whitespace before a colon";
    /// A method that is no token.
    Method = "invalid_method", "invalid method";
    /// The grammar is violated in some other way.
    Malformed = "malformed_head", "malformed head";
    /// Larger than the limit.
    TooLarge = "head_too_large", "head too large";
    /// More fields than the limit.
    TooManyFields = "too_many_fields", "too many header fields";
    /// A longer target than the limit.
    TargetTooLong = "target_too_long", "target too long";
    /// Not HTTP/1.0 or HTTP/1.1.
    Version = "unsupported_version", "unsupported version";
    /// A target in none of the forms that a proxy serves, or with bytes that none has.
    Target = "invalid_target", "invalid target";
    /// An escaped slash in the path.
    EscapedSlash = "escaped_slash", "escaped slash in the path";
    /// An underscore in the name of a field.
    Underscore = "underscore_in_name", "underscore in the name of a header field";
    /// No Host.
    MissingHost = "missing_host", "missing Host";
    /// More than one Host.
    SeveralHosts = "several_hosts", "several Host fields";
    /// A Host that is none, or that contradicts the target.
    InvalidHost = "invalid_host", "invalid Host";
    /// Content-Length beside Transfer-Encoding.
    LengthAndEncoding = "length_and_encoding", "Content-Length with Transfer-Encoding";
    /// A Content-Length that is not one number.
    ContentLength = "invalid_content_length", "invalid Content-Length";
    /// A Transfer-Encoding other than `chunked`, or repeated, or in HTTP/1.0.
    TransferEncoding = "invalid_transfer_encoding", "invalid Transfer-Encoding";
    /// CONNECT, which a reverse proxy does not serve.
    Connect = "connect_refused", "CONNECT is not served";
    /// A host that the connection is not for (RFC 9110 section 15.5.20).
    Misdirected = "misdirected_request", "this connection is not for that host";
}

impl HeadError {
    /// What a client is answered that sent such a head.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::TooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::BareLf
            | Self::BareCr
            | Self::Nul
            | Self::Folded
            | Self::SpaceBeforeColon
            | Self::Method
            | Self::Malformed
            | Self::Target
            | Self::EscapedSlash
            | Self::Underscore
            | Self::MissingHost
            | Self::SeveralHosts
            | Self::InvalidHost
            | Self::LengthAndEncoding
            | Self::ContentLength
            | Self::TransferEncoding => StatusCode::BAD_REQUEST,
        }
    }

    /// The reason why the grammar of a head is violated, of which `error` tells too little.
    #[cold]
    pub(super) fn of_grammar(head: &[u8], error: httparse::Error) -> Self {
        let bare_cr = |at| head.get(at + 1) != Some(&b'\n');
        if memchr::memchr(0, head).is_some() {
            return Self::Nul;
        }
        if memchr::memchr_iter(b'\r', head).any(bare_cr) {
            return Self::BareCr;
        }
        if head.windows(3).any(|window| matches!(window, b"\r\n " | b"\r\n\t")) {
            return Self::Folded;
        }
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        match error {
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            httparse::Error::Version if is_versioned(line) => Self::Version,
            httparse::Error::HeaderName if head.split(|byte| *byte == b'\n').any(is_spaced) => {
                Self::SpaceBeforeColon
            }
            httparse::Error::Token if !line.split(|byte| *byte == b' ').next().is_some_and(is_token) => {
                Self::Method
            }
            httparse::Error::Token if line.iter().filter(|byte| **byte == b' ').count() == 2 => Self::Target,
            httparse::Error::HeaderName
            | httparse::Error::HeaderValue
            | httparse::Error::NewLine
            | httparse::Error::Status
            | httparse::Error::Token
            | httparse::Error::Version => Self::Malformed,
        }
    }
}

/// Whether a request line has three parts, of which the last is some version of HTTP.
fn is_versioned(line: &[u8]) -> bool {
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [_, _, version] = parts.as_slice() else { return false };
    let number = version.strip_prefix(b"HTTP/").unwrap_or_default();
    matches!(number, [major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Whether a line has whitespace between a name and its colon.
fn is_spaced(line: &[u8]) -> bool {
    let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
    name.len() < line.len() && name.ends_with(b" ") | name.ends_with(b"\t") && is_token(name.trim_ascii_end())
}

/// Whether it is a token (RFC 9110 section 5.6.2).
pub(super) fn is_token(word: &[u8]) -> bool {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !word.is_empty() && word.iter().all(token)
}
