//! Answers in the place of the upstream.

use weir_abi::encode_pairs;

use crate::raw;

/// An answer in the place of the upstream's.
/// ```
/// use weir_sdk::prelude::*;
///
/// let reply = Reply::new(429).header("retry-after", "60").body("slower, please\n").details("over the quota");
/// assert_ne!(Action::Reply(reply), Action::Continue);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    status: u16,
    details: String,
    body: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
    grpc_status: Option<u32>,
}

impl Reply {
    /// An answer with this status (200 to 599) and nothing else.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self { status, details: String::new(), body: Vec::new(), headers: Vec::new(), grpc_status: None }
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// With this value as JSON. One that has no JSON is left out.
    #[must_use]
    pub fn json(self, value: &impl serde::Serialize) -> Self {
        let json = serde_json::to_vec(value).unwrap_or_default();
        self.header("content-type", "application/json").body(json)
    }

    /// With a further header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With this reason, for the access log. The caller does not see it.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// With this gRPC status, for callers that speak gRPC.
    #[must_use]
    pub fn grpc_status(mut self, status: u32) -> Self {
        self.grpc_status = Some(status);
        self
    }

    pub(crate) fn send(&self) -> Result<(), weir_abi::Status> {
        let pairs = || self.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
        let mut headers = Vec::new();
        encode_pairs(pairs, &mut headers);
        raw::send_reply(self.status.into(), &self.details, &self.body, &headers, self.grpc_status)
    }
}
