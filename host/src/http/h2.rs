//! HTTP/2 by hyper, downstream (`server`) and upstream (`client`). Nothing else knows hyper.
//!
//! A downstream stream becomes a request, its body, and a [`Responder`]; what answers it is a task of its own,
//! cancelled when the client resets the stream. Bodies that Weir sends go through pipes.

mod client;
mod frames;
mod ledger;
mod receive;
mod server;
mod watched;
mod work;

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use hyper::body::{Body as HyperBody, Frame as HyperFrame, Incoming as HyperIncoming};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::config::limits::Underscores;
use crate::http::body::Frame;
use crate::http::h1::{BodyError, Length};
use crate::http::h2::receive::{answered_trailers, receive_trailers};
use crate::http::message::{Request, Response};
use crate::http::path::PathRules;
use crate::http::pipe::{self, BrokenOff};

pub use client::{Answer, Client, NoAnswer};
pub use ledger::{FrameLimits, Refusal};
pub use server::{Begun, Course, Ended, Front, serve};
pub use work::Part;

/// What a client sends first when it speaks HTTP/2 without asking (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What one connection may ask of Weir.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Streams at a time.
    pub streams: u32,
    /// What may come on one stream before it is told to go on, in bytes.
    pub stream_window: u32,
    /// What may come on all of them.
    pub connection_window: u32,
    /// A header list, in bytes, each field with 32 more (RFC 9113 section 6.5.2).
    pub header_bytes: u32,
    /// What may wait to be written of one answer, in bytes.
    pub send_buffer: usize,
    /// Frames that get nothing done.
    pub frames: FrameLimits,
    /// How long the preface may take, a header block, and every frame but DATA; zero is no limit.
    pub head_timeout: Duration,
    /// How long nothing may move when all is answered and the client does not take it; zero is no limit.
    pub stream_idle: Duration,
    /// What a client that was told to go may still send, in bytes, and how long it may take to do so.
    pub linger: (usize, Duration),
    /// Its fields.
    pub fields: usize,
    /// A target, in bytes.
    pub target: usize,
    /// What becomes of fields with an underscore in their name.
    pub underscores: Underscores,
    /// What is done to paths.
    pub path: PathRules,
}

/// How often a silent connection is asked whether it is alive, and how long it may take to answer.
const PING: Duration = Duration::from_secs(60);
const PONG: Duration = Duration::from_secs(20);

/// The body of a message that comes through HTTP/2.
#[derive(Debug)]
pub struct Incoming {
    body: RefCell<HyperIncoming>,
    /// What becomes of trailers of a request with an underscore in their name; `None` for an answer.
    underscores: Option<Underscores>,
}

impl Incoming {
    fn new(body: HyperIncoming, underscores: Option<Underscores>) -> Self {
        Self { body: RefCell::new(body), underscores }
    }

    /// Reads a piece; `None` at the end.
    pub fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, BodyError>> {
        let mut body = self.body.borrow_mut();
        loop {
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                None => return Poll::Ready(Ok(None)),
                Some(Err(_)) => return Poll::Ready(Err(BodyError::Reset)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return Poll::Ready(Ok(Some(Frame::Data(data)))),
                    Err(frame) => {
                        if let Ok(mut trailers) = frame.into_trailers() {
                            match self.underscores {
                                Some(action) => receive_trailers(&mut trailers, action),
                                None => answered_trailers(&mut trailers),
                            }
                            .map_err(BodyError::Trailers)?;
                            return Poll::Ready(Ok(Some(Frame::Trailers(trailers))));
                        }
                    }
                },
            }
        }
    }

    /// Whether it is at its end.
    pub fn at_end(&self) -> bool {
        self.body.borrow().is_end_stream()
    }

    fn length(&self, headers: &HeaderMap) -> Length {
        if self.at_end() {
            return Length::None;
        }
        let told = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        told.map_or(Length::Unknown, Length::Known)
    }
}

/// A body that Weir sends: what a pipe holds. With a task, the body ends the task when it is dropped.
struct Outgoing {
    pipe: pipe::Reader,
    task: Option<AbortHandle>,
    /// What is left of a piece that is handed on frame by frame.
    rest: Bytes,
}

/// What is handed on at a time: a frame. hyper gives all of it to h2 once the client takes a byte, and there no deadline
/// sees it any more.
const PIECE: usize = 16 * 1024;

impl HyperBody for Outgoing {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<HyperFrame<Bytes>, BrokenOff>>> {
        let outgoing = self.get_mut();
        if !outgoing.rest.is_empty() {
            let piece = outgoing.rest.split_to(outgoing.rest.len().min(PIECE));
            return Poll::Ready(Some(Ok(HyperFrame::data(piece))));
        }
        Poll::Ready(match ready!(outgoing.pipe.poll_frame(cx)) {
            Ok(None) => None,
            Ok(Some(Frame::Data(mut data))) => {
                outgoing.rest = data.split_off(data.len().min(PIECE));
                Some(Ok(HyperFrame::data(data)))
            }
            Ok(Some(Frame::Trailers(trailers))) => Some(Ok(HyperFrame::trailers(trailers))),
            Err(broken) => Some(Err(broken)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.pipe.is_end()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // What has ended in order is past cancelling.
        if !self.is_end_stream() {
            self.task.iter().for_each(AbortHandle::abort);
        }
    }
}

/// Where the task of a stream is, with which hyper sends the answer.
type Place = Rc<RefCell<Option<AbortHandle>>>;

/// Sends the answer to a request: its head once, then its body.
#[derive(Debug)]
pub struct Responder {
    head: RefCell<Option<oneshot::Sender<Response>>>,
    body: pipe::Writer,
    sending: Place,
}

impl Responder {
    /// Cuts the answer off: the stream is reset.
    pub fn cut(&self) {
        self.body.break_off();
        // hyper asks for nothing while it waits for a window, and would not learn of it.
        if self.body.is_lent() {
            self.sending.borrow().iter().for_each(AbortHandle::abort);
        }
    }

    /// Sends the head. A client that is gone does not get it.
    pub fn send_head(&self, response: Response) {
        if let Some(head) = self.head.borrow_mut().take() {
            // The stream was reset meanwhile.
            let _ = head.send(response);
        }
    }

    /// Sends an answer that is here in full.
    pub fn send_whole(&self, response: Response, body: Bytes) {
        self.send_head(response);
        self.body.data(body);
        self.body.end(None);
    }

    /// Where the body goes.
    pub fn body(&self) -> &pipe::Writer {
        &self.body
    }
}

/// A request as it came.
#[derive(Debug)]
pub struct Received {
    /// The request.
    pub request: Request,
    /// How long its body is.
    pub length: Length,
    /// Its body.
    pub body: Incoming,
    /// Where the answer goes.
    pub responder: Responder,
    /// Whether the client is to ask again by the path that the request has now.
    pub redirected: bool,
}

/// An error with its causes.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
