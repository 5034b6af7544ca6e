//! Errors of a filter: a sentence for the log.

use std::fmt;

use weir_abi::Status;

/// Why a filter could not do its work. It is logged in the filter's name.
/// ```
/// use weir_sdk::prelude::*;
///
/// fn limit(text: &str) -> Result<u32> {
///     text.parse().map_err(|_| Error::new(format!("`{text}` is no limit; give a number")).reply_with(400))
/// }
///
/// let error = limit("many").expect_err("it is none");
/// assert_eq!((error.reply_status(), error.to_string().as_str()), (400, "`many` is no limit; give a number"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    message: String,
    status: Option<Status>,
    reply: u16,
}

/// What callbacks return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of the filter's own.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: None, reply: 500 }
    }

    /// With this status for the answer, in place of 500.
    #[must_use]
    pub fn reply_with(mut self, status: u16) -> Self {
        self.reply = status;
        self
    }

    /// The status of the answer to a request that meets this error.
    #[must_use]
    pub fn reply_status(&self) -> u16 {
        self.reply
    }

    /// What the host answered, when that is the reason.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    pub(crate) fn host(what: impl Into<String>, status: Status) -> Self {
        Self { status: Some(status), ..Self::new(what) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{}: the host answered {status:?}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<std::str::Utf8Error> for Error {
    fn from(error: std::str::Utf8Error) -> Self {
        Self::new(error.to_string())
    }
}

/// Turns a status of the host into an error that says what was asked.
pub(crate) trait Explain<T> {
    fn explain(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Explain<T> for std::result::Result<T, Status> {
    fn explain(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|status| Error::host(what(), status))
    }
}
