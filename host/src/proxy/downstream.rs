//! The client's side of an exchange, whatever it speaks.

use std::cell::Cell;
use std::task::{Context, Poll};

use http::{Method, StatusCode, header};

use crate::http::h1::connection::Persistence;
use crate::http::h1::{self, Length};
use crate::http::h2::{Incoming, Responder};
use crate::http::message::{Response, Version, is_bodiless};
use crate::http::peer::{Sink, Source};
use crate::net::stream::Stream;

/// The client's side of an exchange.
#[derive(Clone, Copy)]
pub enum Downstream<'a> {
    /// HTTP/1.
    H1(&'a H1Side<'a>),
    /// HTTP/2.
    H2 {
        /// The request's body.
        body: &'a Incoming,
        /// Where the answer goes.
        responder: &'a Responder,
    },
}

/// An HTTP/1 client, for one exchange.
pub struct H1Side<'a> {
    /// The connection.
    pub connection: &'a h1::Connection,
    /// The version that the client speaks.
    pub version: Version,
    /// Whether the client waits to be told to send its body.
    pub expects_continue: Cell<bool>,
    /// Whether the connection ends with this exchange.
    pub closes: Cell<bool>,
    /// Whether the exchange was cut off.
    pub cut: Cell<bool>,
    /// Tells whether the connection is to end with what was asked for on it: that may begin at any time.
    pub leaves: &'a dyn Fn() -> bool,
}

impl<'a> Downstream<'a> {
    /// Where the request's body comes from.
    pub fn source(&self, length: Length) -> Source<'a> {
        match (self, length) {
            (_, Length::None) => Source::Empty,
            (Self::H1(side), Length::Known(_) | Length::Unknown) => Source::H1(side.connection),
            (Self::H2 { body, .. }, Length::Known(_) | Length::Unknown) => Source::H2(body),
        }
    }

    /// Where the response's body goes.
    pub fn sink(&self) -> Sink<'a> {
        match self {
            Self::H1(side) => Sink::H1(side.connection),
            Self::H2 { responder, .. } => Sink::H2(responder.body()),
        }
    }

    /// Tells a client that waits for it to send its body.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn invite(&self) -> std::io::Result<()> {
        match self {
            Self::H1(side) if side.expects_continue.take() => {
                side.connection.send_continue();
                side.connection.flush().await
            }
            Self::H1(_) | Self::H2 { .. } => Ok(()),
        }
    }

    /// Has the connection end with this exchange unless all of the request's body is here already: what comes later
    /// nobody would read.
    pub fn abandon_body(&self) {
        if let Self::H1(side) = self
            && (side.expects_continue.get() || !side.connection.discard_buffered())
        {
            side.closes.set(true);
        }
    }

    /// Begins the response to a request with the method `to`.
    pub fn send_response(&self, response: &Response, length: Length, to: &Method) {
        match self {
            Self::H1(side) => {
                let modern = side.version > Version::Http10;
                if (side.leaves)() || (!modern && length == Length::Unknown) {
                    side.closes.set(true);
                }
                let persistence = match (side.closes.get(), modern) {
                    (true, _) => Persistence::Close,
                    (false, true) => Persistence::Silent,
                    (false, false) => Persistence::KeepAlive,
                };
                side.connection.send_response(response, length, to, modern, persistence);
            }
            Self::H2 { responder, .. } => {
                let mut head = response.clone();
                // A length that a filter made wrong must not be promised.
                match length {
                    Length::Unknown => drop(head.headers.remove(header::CONTENT_LENGTH)),
                    Length::Known(length) if head.headers.contains_key(header::CONTENT_LENGTH) => {
                        head.headers.insert(header::CONTENT_LENGTH, length.into());
                    }
                    Length::Known(_) | Length::None => {}
                }
                if response.status == StatusCode::NO_CONTENT {
                    head.headers.remove(header::CONTENT_LENGTH);
                }
                if is_bodiless(to, response.status) {
                    responder.body().mute();
                }
                responder.send_head(head);
            }
        }
    }

    /// Ready when the client is gone.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::H1(side) => side.connection.poll_closed(cx),
            Self::H2 { responder, .. } => responder.body().poll_deaf(cx),
        }
    }

    /// Cuts the exchange off, so that the client sees that it did not end in order.
    pub fn cut(&self) {
        match self {
            Self::H1(side) => {
                side.cut.set(true);
                side.connection.with_stream(Stream::reset);
            }
            Self::H2 { responder, .. } => responder.cut(),
        }
    }
}
