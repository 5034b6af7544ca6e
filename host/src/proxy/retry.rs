//! What was not answered is tried again, when that can do no harm: once, and elsewhere.

use std::net::SocketAddr;
use std::rc::Rc;

use http::Method;

use crate::http::h1::Length;
use crate::proxy::exchange::Exchange;
use crate::proxy::forward::Upgraded;
use crate::proxy::reply::Failure;
use crate::route::Route;
use crate::upstream::connection::{Client, ConnectError, Wanted};
use crate::upstream::local::{LocalCluster, Retry};

/// `UO` and `URX` of Envoy's response flags (`StreamInfo::CoreResponseFlag`): there were too many retries in all, or of
/// this request.
const UPSTREAM_OVERFLOW: u64 = 1 << 7;
const UPSTREAM_RETRY_LIMIT_EXCEEDED: u64 = 1 << 15;

/// A failed attempt.
pub(super) struct Attempt {
    pub(super) failure: Failure,
    /// The endpoint, when one was tried.
    pub(super) address: Option<SocketAddr>,
    /// Whether not a byte of an answer has come.
    pub(super) unanswered: bool,
    /// Whether the connection had carried an exchange before, and may have been closed since.
    pub(super) stale: bool,
}

impl Exchange<'_> {
    /// Tries an endpoint, and, when that was in vain and may be repeated, another one.
    pub(super) async fn attempts(
        &self,
        cluster: &Rc<LocalCluster>,
        route: &Route,
    ) -> Result<Option<Upgraded>, Attempt> {
        cluster.count_request();
        let client = Some(Client::from(&*self.stream.borrow().connection));
        let mut wanted = Wanted { upgrade: self.upgrade.is_some(), client, ..Wanted::default() };
        loop {
            let failed = match self.attempt(cluster, wanted, route).await {
                Err(failed) if self.may_repeat(&failed) => failed,
                done => return done,
            };
            match failed.address {
                // A connection that the endpoint closed as the request was on its way says nothing of the endpoint: a new
                // one will do.
                Some(_) if failed.stale && !wanted.fresh => wanted.fresh = true,
                Some(address) if wanted.avoid.is_none() => match cluster.retry(address) {
                    Retry::Elsewhere => wanted.avoid = Some(address),
                    Retry::OverBudget => {
                        self.flag(UPSTREAM_OVERFLOW);
                        return Err(failed);
                    }
                    Retry::Nowhere => return Err(failed),
                },
                Some(_) => {
                    self.flag(UPSTREAM_RETRY_LIMIT_EXCEEDED);
                    return Err(failed);
                }
                None => return Err(failed),
            }
        }
    }

    fn flag(&self, flag: u64) {
        self.stream.borrow_mut().info.flags |= flag;
    }

    /// Whether nothing speaks against sending the request once more.
    fn may_repeat(&self, failed: &Attempt) -> bool {
        match failed.failure {
            // Nothing was sent, whatever it is.
            Failure::Connect(ConnectError::Timeout { .. } | ConnectError::Failed { .. }) => true,
            Failure::UpstreamClosed(_) | Failure::UpstreamReset(_) => {
                failed.unanswered && self.length == Length::None && is_idempotent(&self.method)
            }
            Failure::Connect(ConnectError::NoEndpoints(_) | ConnectError::Private { .. })
            | Failure::Reply(_)
            | Failure::Reset(_)
            | Failure::NoRoute
            | Failure::UpstreamHead(_)
            | Failure::UpstreamInterim
            | Failure::UpstreamBody(_)
            | Failure::Timeout
            | Failure::Idle
            | Failure::RequestTimeout
            | Failure::TooSlow(_)
            | Failure::Overload
            | Failure::RequestBody(_)
            | Failure::ClientGone => false,
        }
    }
}

/// Methods that may be repeated (RFC 9110 section 9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE
    )
}
