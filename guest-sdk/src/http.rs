//! HTTP calls of a filter's own, to clusters of the host's configuration.
//!
//! ```
//! use std::time::Duration;
//!
//! use weir_sdk::http;
//! use weir_sdk::prelude::*;
//!
//! struct Asks;
//!
//! #[weir_sdk::http_filter]
//! impl HttpFilter for Asks {
//!     fn new(_: ()) -> Result<Self> {
//!         Ok(Self)
//!     }
//!
//!     async fn on_request_headers(&self, request: &mut Request, _: &mut ()) -> Result<Action> {
//!         let question = http::Request::get("/may-i").header("x-path", request.path()?);
//!         let answer = http::call("authz", question.timeout(Duration::from_millis(250))).await?;
//!         Ok(if answer.status() == 200 { Action::Continue } else { Action::Reply(Reply::new(403)) })
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! A call whose future is dropped, because its stream has ended or another was faster, is given up: its answer is
//! neither read nor kept. (Proxy-Wasm has no way to tell the host so; the host gives it up by the timeout.)

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::de::DeserializeOwned;
use weir_abi::{BufferKind, MapKind, encode_pairs};

use crate::error::{Error, Explain, Result};
use crate::headers::Headers;
use crate::raw;
use crate::table::Table;

/// A request of a filter's own.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    path: String,
    authority: Option<String>,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    timeout: Duration,
}

impl Request {
    /// A request with this method and path. Its authority is the cluster's name, and its time is five seconds.
    #[must_use]
    pub fn new(method: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            path: path.into(),
            authority: None,
            headers: Vec::new(),
            body: Vec::new(),
            timeout: Duration::from_secs(5),
        }
    }

    /// A GET.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path)
    }

    /// A POST with this body.
    #[must_use]
    pub fn post(path: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", path).body(body)
    }

    /// With this authority: the host that is asked for.
    #[must_use]
    pub fn authority(mut self, authority: impl Into<String>) -> Self {
        self.authority = Some(authority.into());
        self
    }

    /// With a further header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// With this much time for the whole answer. At least a millisecond is given.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn send(&self, cluster: &str) -> Result<u32> {
        let authority = self.authority.as_deref().unwrap_or(cluster);
        let pseudo = [(":method", self.method.as_str()), (":path", &self.path), (":authority", authority)];
        let pairs = || {
            let pseudo = pseudo.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            pseudo.chain(self.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())))
        };
        let mut headers = Vec::new();
        encode_pairs(pairs, &mut headers);
        raw::http_call(cluster, &headers, &self.body, millis(self.timeout))
            .explain(|| format!("calling cluster `{cluster}`"))
    }
}

/// Milliseconds for the host: 0 would be no limit.
pub(crate) fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).clamp(1, i32::MAX.cast_unsigned())
}

/// Sends a request to a cluster. It is sent when the future is first polled, which `.await` does.
///
/// The future ends in an error when the host refuses the call (there is no such cluster, or the filter may not call it),
/// or when no answer comes in time.
pub fn call(cluster: impl Into<String>, request: Request) -> Call {
    Call { cluster: cluster.into(), request, token: None }
}

/// A call that is under way. See [`call`].
#[derive(Debug)]
#[must_use = "a call is sent when it is awaited"]
pub struct Call {
    cluster: String,
    request: Request,
    token: Option<u32>,
}

impl Future for Call {
    type Output = Result<Answer>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Answer>> {
        let Some(token) = self.token else {
            let token = self.request.send(&self.cluster)?;
            self.token = Some(token);
            CALLS.with(|calls| calls.open(token, cx));
            return Poll::Pending;
        };
        let answer = ready!(CALLS.with(|calls| calls.poll(token, cx)));
        let no_answer = || Error::new(format!("cluster `{}` gave no answer", self.cluster));
        Poll::Ready(answer.flatten().ok_or_else(no_answer))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(token) = self.token {
            CALLS.with(|calls| calls.forget(token));
        }
    }
}

/// The answer to a call.
#[derive(Debug, Clone)]
pub struct Answer {
    headers: Headers,
    body: Vec<u8>,
    trailers: Option<Headers>,
}

impl Answer {
    /// The status; 0 when the host names none.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.header(":status").and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// The value of a header that is there exactly once, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        str::from_utf8(self.headers.get_only(name)?).ok()
    }

    /// All headers.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body itself.
    #[must_use]
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// The trailers, if there were any.
    #[must_use]
    pub fn trailers(&self) -> Option<&Headers> {
        self.trailers.as_ref()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none, or not what is wanted.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_slice(&self.body)?)
    }
}

/// What the callback counts of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) headers: u32,
    pub(crate) body: u32,
    pub(crate) trailers: u32,
}

/// The host has an answer, or, all zeros, none. It can be read now, and only now.
pub(crate) fn answered(token: u32, counts: Counts) {
    if CALLS.with(|calls| calls.is_awaited(token)) {
        CALLS.with(|calls| calls.answer(token, read(counts)));
    }
}

fn read(counts: Counts) -> Option<Answer> {
    if counts.headers == 0 {
        return None;
    }
    let body = match counts.body {
        0 => Vec::new(),
        len => raw::buffer(BufferKind::HttpCallResponseBody, 0, len as usize).ok()?,
    };
    let trailers = (counts.trailers > 0).then(|| Headers::read(MapKind::HttpCallResponseTrailers));
    Some(Answer {
        headers: Headers::read(MapKind::HttpCallResponseHeaders).ok()?,
        body,
        trailers: trailers.and_then(Result::ok),
    })
}

thread_local! {
    static CALLS: Table<Option<Answer>> = const { Table::new() };
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn an_answer_that_nobody_awaits_any_more_is_not_kept() {
        let table = Table::new();
        let cx = Context::from_waker(Waker::noop());
        table.open(7, &cx);
        assert!(table.poll(7, &cx).is_pending());
        assert!(table.forget(7), "it was awaited");
        table.answer(7, "late");
        assert_eq!((table.len(), table.poll(7, &cx)), (0, Poll::Ready(None)));
    }

    #[test]
    fn a_timeout_is_never_no_timeout() {
        assert_eq!(millis(Duration::ZERO), 1, "0 means none to the host");
        assert_eq!(millis(Duration::MAX), i32::MAX.cast_unsigned(), "what is above is negative to the host");
    }

    #[test]
    fn a_call_that_the_host_refuses_says_which() {
        let mut call = Box::pin(call("authz", Request::get("/")));
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Err(error)) = call.as_mut().poll(&mut cx) else { panic!("there is no host here") };
        assert_eq!(error.to_string(), "calling cluster `authz`: the host answered Unimplemented");
    }
}
