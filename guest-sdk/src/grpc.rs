//! gRPC calls of a filter's own: one message for one message.
//!
//! Messages are bytes; what makes them of a schema (`prost`, say) is the filter's choice.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use weir_sdk::grpc;
//! # async fn example(message: Vec<u8>) -> weir_sdk::Result<()> {
//! let call = grpc::call("policy", "policy.v1.Policy", "Check", message);
//! match call.timeout(Duration::from_millis(250)).await {
//!     Ok(answer) => weir_sdk::info!("{} bytes", answer.len()),
//!     Err(grpc::Failure { status: 7, .. }) => weir_sdk::info!("denied"),
//!     Err(failure) => return Err(failure.into()),
//! }
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use weir_abi::{BufferKind, encode_pairs, protobuf};

use crate::error::{Error, Explain};
use crate::http::millis;
use crate::raw;
use crate::table::Table;

/// Calls a method of a service (`package.Service`) at a cluster. The message is sent when the future is first polled,
/// which `.await` does. Its time is five seconds.
///
/// A call whose future is dropped is cancelled.
pub fn call(
    cluster: impl Into<String>,
    service: impl Into<String>,
    method: impl Into<String>,
    message: impl Into<Vec<u8>>,
) -> Call {
    Call {
        cluster: cluster.into(),
        service: service.into(),
        method: method.into(),
        message: message.into(),
        metadata: Vec::new(),
        timeout: Duration::from_secs(5),
        token: None,
    }
}

/// A call, see [`call`].
#[derive(Debug)]
#[must_use = "a call is sent when it is awaited"]
pub struct Call {
    cluster: String,
    service: String,
    method: String,
    message: Vec<u8>,
    metadata: Vec<(String, Vec<u8>)>,
    timeout: Duration,
    token: Option<u32>,
}

impl Call {
    /// With further metadata.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.metadata.push((name.into(), value.into()));
        self
    }

    /// With this much time for the answer. At least a millisecond is given.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn send(&self) -> Result<u32, Failure> {
        let pairs = || self.metadata.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
        let mut metadata = Vec::new();
        if !self.metadata.is_empty() {
            encode_pairs(pairs, &mut metadata);
        }
        let target = raw::GrpcTarget {
            service: &cluster(&self.cluster),
            name: &self.service,
            method: &self.method,
            metadata: &metadata,
        };
        let sent = raw::grpc_call(&target, &self.message, millis(self.timeout));
        sent.explain(|| format!("calling cluster `{}`", self.cluster)).map_err(|error| Failure {
            status: UNAVAILABLE,
            message: error.to_string(),
            called: self.called(),
        })
    }

    fn called(&self) -> String {
        format!("{}/{}", self.service, self.method)
    }
}

impl Future for Call {
    type Output = Result<Vec<u8>, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(token) = self.token else {
            let token = self.send()?;
            self.token = Some(token);
            CALLS.with(|calls| calls.open(token, cx));
            return Poll::Pending;
        };
        let answer = ready!(CALLS.with(|calls| calls.poll(token, cx)));
        let ended = answer.unwrap_or_else(|| Err((UNAVAILABLE, "it was polled after its end".to_owned())));
        Poll::Ready(ended.map_err(|(status, message)| Failure { status, message, called: self.called() }))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(token) = self.token
            && CALLS.with(|calls| calls.forget(token))
        {
            // When the host does not know it any more, it is over already.
            let _ = raw::grpc_cancel(token);
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The gRPC status. 14 (UNAVAILABLE) when the host does not take the call.
    pub status: u32,
    /// What was said about it.
    pub message: String,
    called: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ended with gRPC status {}: {}", self.called, self.status, self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::new(failure.to_string())
    }
}

/// How hosts are told of a cluster: Envoy takes a message `envoy.config.core.v3.GrpcService`. It takes a bare name, too, but only
/// one that is by chance no such message.
fn cluster(name: &str) -> Vec<u8> {
    let (mut envoy_grpc, mut service) = (Vec::new(), Vec::new());
    protobuf::put_bytes(1, name.as_bytes(), &mut envoy_grpc);
    protobuf::put_bytes(1, &envoy_grpc, &mut service);
    service
}

/// The answer is here. It can be read now, and only now.
pub(crate) fn received(token: u32, len: u32) {
    if CALLS.with(|calls| calls.is_awaited(token)) {
        let message = match len {
            0 => Ok(Vec::new()),
            len => raw::buffer(BufferKind::GrpcReceiveBuffer, 0, len as usize),
        };
        let answer =
            message.map_err(|status| (UNAVAILABLE, format!("reading it: the host answered {status:?}")));
        CALLS.with(|calls| calls.answer(token, answer));
    }
}

/// There will be no answer.
pub(crate) fn closed(token: u32, status: u32) {
    if CALLS.with(|calls| calls.is_awaited(token)) {
        let message = raw::status_message().unwrap_or_default();
        let message = String::from_utf8_lossy(&message).into_owned();
        CALLS.with(|calls| calls.answer(token, Err((status, message))));
    }
}

/// gRPC's UNAVAILABLE.
const UNAVAILABLE: u32 = 14;

thread_local! {
    static CALLS: Table<Result<Vec<u8>, (u32, String)>> = const { Table::new() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_named_as_envoy_reads_it() {
        let service = cluster("policy");
        let envoy_grpc = protobuf::bytes(&service, 1).expect("envoy_grpc");
        assert_eq!(protobuf::bytes(envoy_grpc, 1), Some(b"policy".as_slice()));
    }
}
