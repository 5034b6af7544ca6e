//! One request and its answer.
//!
//! ```text
//! receive -> route -> request filters (-> route again) -> pick -> connect -> forward -> response filters -> finish
//! ```

mod begin;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method};

use crate::clock::Timer;
use crate::http::h1::Length;
use crate::http::peer::Source;
use crate::overload::Level;
use crate::plugin::chain::data::Passed;
use crate::plugin::chain::{Chain, Half};
use crate::plugin::stream::{Info, LocalReply, Reroute, SharedStream};
use crate::proxy::downstream::Downstream;
use crate::proxy::forward::Upgraded;
use crate::proxy::live::Place;
use crate::proxy::local::Local;
use crate::proxy::pump::Intake;
use crate::proxy::rate::Rate;
use crate::proxy::record::Record;
use crate::proxy::redirect;
use crate::proxy::reply::{Failure, render};
use crate::proxy::worker::Worker;
use crate::route::{Action, Route};
use crate::snapshot::HttpService;

pub use begin::Begin;

/// An exchange under way.
pub struct Exchange<'a> {
    /// The worker.
    pub worker: &'a Rc<Worker>,
    /// The snapshot that it keeps.
    pub local: Rc<Local>,
    /// The client.
    pub down: Downstream<'a>,
    /// Its state, which its filters share.
    pub stream: SharedStream,
    /// Its filters.
    pub chain: RefCell<Chain>,
    /// How long the request's body is.
    pub length: Length,
    /// The request's method, as it is answered.
    pub method: Method,
    /// The protocol that the client wants to change to.
    pub upgrade: Option<HeaderValue>,
    /// Whether the head of a response has been sent.
    pub answered: Cell<bool>,
    /// What filters may hold of a body.
    pub buffer_limit: usize,
    /// Told when something moves in either direction.
    pub moved: Cell<bool>,
    /// What is told in the end.
    pub record: RefCell<Record>,
    /// Whether all of the request has come.
    pub received: Cell<bool>,
    /// Whether all of the response has come.
    pub answer_received: Cell<bool>,
    /// How fast the client sends the request's body.
    pub upload: Rate,
    /// How fast it takes that of the answer.
    pub download: Rate,
    /// Where it stands among those of its worker.
    pub place: Place,
    /// Ends an exchange whose request takes too long to come, where there is more to come.
    arrival: Option<Timer>,
    /// Ends an exchange in which nothing moves.
    pub idle: Timer,
    idle_after: Duration,
}

impl<'a> Exchange<'a> {
    /// Everything between the request's arrival and its answer.
    async fn answer(
        &self,
        route: Option<Arc<Route>>,
        http: &HttpService,
    ) -> Result<Option<Upgraded>, Failure> {
        let route = self.filter_request(route, http).await?;
        let route = route.ok_or(Failure::NoRoute)?;
        match &route.action {
            Action::Forward { .. } => self.forward(&route).await,
            Action::Redirect(redirect) => {
                let stream = self.stream.borrow();
                let request = stream.request.as_ref().ok_or(Failure::NoRoute)?;
                Err(Failure::Reply(redirect::reply(redirect, request)))
            }
            Action::Respond { status, body, headers } => Err(Failure::Reply(LocalReply {
                status: *status,
                headers: headers.clone(),
                body: body.clone(),
                grpc_status: None,
                details: "direct_response".into(),
            })),
        }
    }

    /// Runs the request filters. The route is chosen again when one has edited what it was chosen by.
    async fn filter_request(
        &self,
        route: Option<Arc<Route>>,
        http: &HttpService,
    ) -> Result<Option<Arc<Route>>, Failure> {
        if self.chain.borrow().is_empty() {
            return Ok(route);
        }
        self.filter_headers(Half::Received, self.down.source(self.length), self.length == Length::None)
            .await?;
        let mut stream = self.stream.borrow_mut();
        match stream.reroute {
            Reroute::Anyhow => {}
            Reroute::ByHeaders if http.routes.is_by_headers() => {}
            Reroute::No | Reroute::ByHeaders => return Ok(route),
        }
        let route = stream.request.as_ref().and_then(|request| http.routes.find(request)).cloned();
        tell(&mut stream.info, route.as_ref(), &self.local);
        self.record.borrow_mut().route = route.clone();
        Ok(route)
    }

    /// Shows the headers of a half to the filters. A filter may want to see the body before it lets them go: then it is
    /// read from `source`.
    pub async fn filter_headers(&self, half: Half, source: Source<'_>, end: bool) -> Result<(), Failure> {
        let intake = self.intake(half, source);
        let ahead = poll_fn(|cx| {
            if half == Half::Received && self.down.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Failure::ClientGone));
            }
            let headers = self.chain.borrow_mut().poll_headers(half, end, cx);
            if let Poll::Ready(done) = headers {
                return Poll::Ready(done.map(|()| false).map_err(Failure::from));
            }
            if !end && self.chain.borrow().reads_ahead(half) { Poll::Ready(Ok(true)) } else { Poll::Pending }
        });
        if !ahead.await? {
            return Ok(());
        }
        if half == Half::Received {
            self.down.invite().await.map_err(|_| Failure::ClientGone)?;
        }
        poll_fn(|cx| {
            // Whoever sends a body is not waited for any longer because a filter has asked for it.
            if half == Half::Received
                && let Poll::Ready(failure) = self.poll_deadlines(cx)
            {
                return Poll::Ready(Err(failure));
            }
            loop {
                let headers = self.chain.borrow_mut().poll_headers(half, end, cx);
                if let Poll::Ready(done) = headers {
                    return Poll::Ready(done.map_err(Failure::from));
                }
                if !self.chain.borrow().reads_ahead(half) {
                    return Poll::Pending;
                }
                // Nothing passes all filters before the headers have.
                ready!(intake.poll(cx)).map_err(|broken| self.broken(half, broken))?;
            }
        })
        .await
    }

    /// A body as it comes from `source`.
    pub fn intake<'b>(&'b self, half: Half, source: Source<'b>) -> Intake<'b, 'a> {
        let chain = self.chain.borrow();
        Intake { exchange: self, half, source, filtered: chain.wants_data(half) || chain.holds(half) }
    }

    /// Ends the exchange with an answer of Weir's own, if it has none yet.
    async fn fail(&self, failure: Failure) {
        let details = failure.details();
        match &failure {
            Failure::Connect(error) => tracing::warn!("{error}"),
            Failure::UpstreamClosed(reason)
            | Failure::UpstreamReset(reason)
            | Failure::UpstreamBody(reason) => {
                tracing::debug!("upstream: {reason}")
            }
            Failure::Reply(_)
            | Failure::Reset(_)
            | Failure::NoRoute
            | Failure::UpstreamHead(_)
            | Failure::UpstreamInterim
            | Failure::Timeout
            | Failure::Idle
            | Failure::RequestTimeout
            | Failure::TooSlow(_)
            | Failure::Overload
            | Failure::ClientGone => {}
            Failure::RequestBody(error) => {
                error.refused().into_iter().for_each(|reason| self.record.borrow().refuse(reason));
            }
        }
        if !matches!(failure, Failure::Reply(_) | Failure::Reset(_)) {
            self.record.borrow().fail(&details);
        }
        self.record.borrow_mut().cause = Some(Arc::clone(&details));
        {
            let info = &mut self.stream.borrow_mut().info;
            info.details.get_or_insert(details);
            info.flags |= failure.flags();
            info.transport_failure = failure.transport().or(info.transport_failure.take());
        }
        let cut = matches!(failure, Failure::Overload) && self.place.is_cut();
        let reply = if self.answered.get() || cut { None } else { failure.reply() };
        let sent = match reply {
            Some(reply) => self.send_reply(reply).await.is_ok(),
            None => false,
        };
        if !sent {
            self.down.cut();
        }
    }

    /// Sends an answer of Weir's own, through the filters that saw the request. A filter that answers in its turn has
    /// the last word.
    async fn send_reply(&self, reply: LocalReply) -> Result<(), Failure> {
        self.down.abandon_body();
        // What filters say to a response is not for filters to see, as in Envoy.
        if self.stream.borrow().response.is_some() {
            return self.reply_directly(reply).await;
        }
        match self.filter_reply(reply).await {
            Ok(()) => Ok(()),
            Err(Failure::Reply(reply)) if !self.answered.get() => self.reply_directly(reply).await,
            Err(failure) => Err(failure),
        }
    }

    /// Sends an answer of Weir's own that no filter sees.
    async fn reply_directly(&self, reply: LocalReply) -> Result<(), Failure> {
        let (response, body) = render(reply, self.stream.borrow().request.as_ref());
        self.stream.borrow_mut().response = Some(response);
        self.start_response(if body.is_empty() { Length::None } else { Length::Known(body.len() as u64) });
        self.write_all(body).await
    }

    async fn filter_reply(&self, reply: LocalReply) -> Result<(), Failure> {
        let (response, body) = render(reply, self.stream.borrow().request.as_ref());
        self.stream.borrow_mut().response = Some(response);
        let (end, half) = (body.is_empty(), Half::Answered);
        let limit = self.buffer_limit.max(body.len());
        let mut rest = (!end).then_some(body);
        poll_fn(|cx| {
            let headers = self.chain.borrow_mut().poll_headers(half, end, cx);
            if headers.is_pending()
                && self.chain.borrow().reads_ahead(half)
                && let Some(body) = rest.take()
            {
                self.chain.borrow_mut().on_data(half, body, true, limit)?;
                return self.chain.borrow_mut().poll_headers(half, end, cx);
            }
            headers
        })
        .await?;
        let (wants, holds) = (self.chain.borrow().wants_data(half), self.chain.borrow().holds(half));
        let mut passed = match rest {
            Some(body) if wants => self.chain.borrow_mut().on_data(half, body, true, limit)?,
            Some(body) => Passed::Data(body, true),
            None if holds => Passed::Held,
            None => Passed::Data(Bytes::new(), true),
        };
        let body = loop {
            match passed {
                Passed::Data(data, _) | Passed::End(data, _) => break data,
                Passed::Held => passed = poll_fn(|cx| self.chain.borrow_mut().poll_resumed(half, cx)).await?,
            }
        };
        self.start_response(if body.is_empty() { Length::None } else { Length::Known(body.len() as u64) });
        self.write_all(body).await
    }

    /// Sends the head of the response, as it now is.
    pub fn start_response(&self, length: Length) {
        self.answered.set(true);
        let mut stream = self.stream.borrow_mut();
        if let Some(response) = &mut stream.response {
            self.record.borrow_mut().status = Some(response.status.as_u16());
            self.down.send_response(response, length, &self.method);
        }
    }

    async fn write_all(&self, body: Bytes) -> Result<(), Failure> {
        let sink = self.down.sink();
        self.stream.borrow_mut().info.answered_bytes += body.len() as u64;
        sink.data(body).and_then(|()| sink.end(None)).map_err(|_| Failure::ClientGone)?;
        poll_fn(|cx| sink.poll_flush(cx)).await.map_err(|_| Failure::ClientGone)
    }

    /// Something has moved: the exchange is not idle.
    pub fn moved(&self) {
        if !self.idle_after.is_zero() {
            self.idle.set(self.idle_after);
        }
    }

    /// Ready when the exchange is to end out of turn.
    pub fn poll_watch(&self, cx: &mut Context<'_>) -> Poll<Failure> {
        if let Poll::Ready(stop) = self.chain.borrow_mut().poll_interrupt(cx) {
            return Poll::Ready(Failure::from(stop));
        }
        self.poll_deadlines(cx)
    }

    /// Ready when one of those who take part is too late, or when there is too little of something for it to go on.
    fn poll_deadlines(&self, cx: &Context<'_>) -> Poll<Failure> {
        if self.moved.take() {
            self.moved();
        }
        // It wakes whoever is to be cut, too.
        if self.idle.poll_expired(cx).is_ready() {
            return Poll::Ready(Failure::Idle);
        }
        if self.worker.overload.at_least(Level::Reset) && self.place.is_cut() {
            return Poll::Ready(Failure::Overload);
        }
        for (rate, half) in [(&self.upload, Half::Received), (&self.download, Half::Answered)] {
            if rate.is_late(cx) {
                return Poll::Ready(Failure::TooSlow(half));
            }
        }
        if let Some(arrival) = &self.arrival
            && !self.received.get()
            && arrival.poll_expired(cx).is_ready()
        {
            return Poll::Ready(Failure::RequestTimeout);
        }
        Poll::Pending
    }
}

/// Notes which route was chosen.
fn tell(info: &mut Info, route: Option<&Arc<Route>>, local: &Local) {
    info.route = route.map(|route| Arc::clone(&route.facts));
    let planned = route.and_then(|route| local.clusters.get(route.action.planned()?));
    info.endpoints = planned.map(|cluster| cluster.endpoints());
}
