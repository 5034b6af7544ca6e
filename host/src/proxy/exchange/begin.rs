//! How an exchange begins: its route is found, its filters are made, and its clocks are set.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::http::h1::Length;
use crate::http::message::Request;
use crate::net::connection::Connection;
use crate::overload::Level;
use crate::plugin::chain::Chain;
use crate::plugin::stream::Stream;
use crate::proxy::downstream::Downstream;
use crate::proxy::exchange::{Exchange, tell};
use crate::proxy::forward::Upgraded;
use crate::proxy::local::{Local, LocalListener};
use crate::proxy::rate::Rate;
use crate::proxy::record::Record;
use crate::proxy::redirect;
use crate::proxy::reply::Failure;
use crate::proxy::request::Said;
use crate::proxy::worker::Worker;
use crate::route::Route;
use crate::snapshot::HttpService;

/// What an exchange begins with.
pub struct Begin<'a> {
    /// The worker.
    pub worker: &'a Rc<Worker>,
    /// The snapshot that it keeps.
    pub local: Rc<Local>,
    /// Its listener.
    pub listener: Rc<LocalListener>,
    /// Its connection.
    pub connection: &'a Arc<Connection>,
    /// The client.
    pub down: Downstream<'a>,
    /// The request, prepared.
    pub request: Request,
    /// How long its body is.
    pub length: Length,
    /// What it says beside.
    pub said: Said,
    /// Whether the client is only told to ask again by the path that the request has now.
    pub redirected: bool,
}

/// An exchange that has begun.
struct Begun<'a> {
    exchange: Exchange<'a>,
    route: Option<Arc<Route>>,
    /// Why it ends before it is answered.
    ended: Option<Failure>,
}

impl<'a> Begin<'a> {
    /// Answers the request. What is returned is a connection that has changed its protocol, with the record that
    /// goes on until it ends.
    pub fn run(self, http: &HttpService) -> impl Future<Output = Option<(Upgraded, Record)>> {
        let begun = self.enter(http);
        async move {
            // It is used where it lies: taken apart, it would be here twice.
            let ended = match begun.ended {
                None => begun.exchange.answer(begun.route, http).await,
                Some(failure) => Err(failure),
            };
            let upgraded = match ended {
                Ok(upgraded) => upgraded,
                Err(failure) => {
                    // In a box: most exchanges do not take the memory of it.
                    Box::pin(begun.exchange.fail(failure)).await;
                    None
                }
            };
            begun.exchange.chain.borrow_mut().finish();
            let record = begun.exchange.record.into_inner();
            upgraded.map(|upgraded| (upgraded, record))
        }
    }

    /// Finds the route, and makes the filters.
    fn enter(self, http: &HttpService) -> Begun<'a> {
        let redirect = self.redirected.then(|| redirect::to_itself(&self.request));
        let route = http.routes.find(&self.request).filter(|_| !self.redirected).cloned();
        // Under overload a request is to cost as little as can be.
        let overloaded = self.worker.overload.at_least(Level::NoRequests);
        let filters = self.listener.chains.get(route.as_ref().map_or(0, |route| route.chain));
        let filters = filters.filter(|_| !overloaded && redirect.is_none());
        let filters = filters.map(|chain| chain.iter().cloned()).into_iter().flatten();

        let stream = Stream::new(Arc::clone(self.connection));
        let method = self.request.method.clone();
        let mut record =
            Record::new(self.worker, Arc::clone(&stream), Rc::clone(&self.local), Rc::clone(&self.listener));
        record.client = self.said.client;
        record.route = route.clone();
        let (authority, path) = (self.request.authority.clone(), self.request.path.clone());
        record.received = Some((method.clone(), authority, path));
        {
            let mut state = stream.borrow_mut();
            tell(&mut state.info, route.as_ref(), &self.local);
            state.request = Some(self.request);
        }
        let (chain, begun) = Chain::begin(filters, &stream, &self.worker.timers);
        let ended = match (begun, redirect) {
            (Err(stop), _) => Some(stop.into()),
            (Ok(()), _) if overloaded => Some(Failure::Overload),
            (Ok(()), Some(reply)) => {
                let refused = reply.status.is_client_error();
                refused.then(|| record.refuse(&reply.details));
                Some(Failure::Reply(reply))
            }
            (Ok(()), None) => None,
        };
        let limits = &http.limits;
        let (timers, grace) = (&self.worker.timers, limits.body_rate_grace_period);
        // The streams of gRPC may be silent for as long as they like.
        let streaming = matches!(self.down, Downstream::H2 { .. }) && self.length == Length::Unknown;
        let least = if streaming { 0 } else { limits.min_request_body_rate.0 };
        let received = self.length == Length::None;
        let arrival = (!received && !limits.request_timeout.is_zero()).then(|| {
            let arrival = timers.timer();
            arrival.set(limits.request_timeout);
            arrival
        });
        let exchange = Exchange {
            upload: Rate::new(timers, least, grace, Some(grace)),
            download: Rate::new(timers, limits.min_response_body_rate.0, grace, None),
            place: self.worker.live.enter(),
            worker: self.worker,
            local: self.local,
            down: self.down,
            stream,
            chain: RefCell::new(chain),
            length: self.length,
            method,
            upgrade: self.said.upgrade,
            answered: Cell::new(false),
            buffer_limit: limits.max_buffered_body.0,
            moved: Cell::new(false),
            record: RefCell::new(record),
            received: Cell::new(received),
            answer_received: Cell::new(false),
            arrival,
            idle: timers.timer(),
            idle_after: limits.stream_idle_timeout,
        };
        exchange.moved();
        Begun { exchange, route, ended }
    }
}
