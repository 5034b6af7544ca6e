//! The writing half of a connection: heads and bodies, gathered into few writes.
//!
//! What is small is copied behind the head, so that head and body leave in one write; what is large is passed on as
//! it is.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method};
use tokio::io::AsyncWrite;

use crate::http::h1::Length;
use crate::http::h1::encode::{self, Persistence};
use crate::http::message::{Request, Response, is_bodiless};
use crate::net::stream::Stream;
use crate::net::turn::{TURN, give_way};

/// The writing half.
#[derive(Debug)]
pub(super) struct Writer {
    /// What goes first.
    head: BytesMut,
    /// Whether that has become large.
    large: bool,
    /// What goes behind it.
    tail: VecDeque<Bytes>,
    /// The bytes of both.
    queued: usize,
    /// Above so many, what is queued has to be written before more is taken.
    full: usize,
    /// Written, and perhaps still in a buffer of TLS.
    unflushed: bool,
    body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Done,
    Length(u64),
    Chunked,
    UntilClose,
    /// There is none, whatever is given: the response to HEAD, and those without content.
    Ignored,
    /// The message is of no use any more: its body contradicted its head.
    Broken,
}

/// A piece below this is copied behind what is there.
const SMALL: usize = 4 * 1024;

/// Memory above this is given back when what was in it is written.
const LARGE: usize = 16 * 1024;

/// The most pieces of one write.
const PIECES: usize = 16;

/// The most bytes of one write, before others have their turn: the kernel takes megabytes at once, and what a filter makes of a
/// head, or of a body that it held, may be that much.
const MOST_WRITTEN: usize = 2 * TURN;

/// A body that is not as long as its head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not as long as its Content-Length")]
pub struct WrongLength;

impl Writer {
    pub(super) fn new(full: usize) -> Self {
        let (head, tail) = (BytesMut::new(), VecDeque::new());
        Self { head, large: false, tail, queued: 0, full, unflushed: false, body: Body::Done }
    }

    /// Begins a request.
    pub(super) fn request(&mut self, request: &Request, length: Length, upgrade: bool) {
        self.head_with(|out| encode::request(request, length, upgrade, out));
        self.begin(length, true);
    }

    /// Begins a response to a request with the method `to`.
    pub(super) fn response(
        &mut self,
        response: &Response,
        length: Length,
        to: &Method,
        chunked: bool,
        persistence: Persistence,
    ) {
        self.head_with(|out| encode::response(response, length, to, chunked, persistence, out));
        self.begin(length, chunked);
        if self.body != Body::Done && is_bodiless(to, response.status) {
            self.body = Body::Ignored;
        }
    }

    /// Sends bytes outside of any message: `100 Continue`.
    pub(super) fn raw(&mut self, bytes: &'static [u8]) {
        self.head_with(|out| out.extend_from_slice(bytes));
    }

    fn begin(&mut self, length: Length, chunked: bool) {
        self.body = match length {
            Length::None => Body::Done,
            Length::Known(length) => Body::Length(length),
            Length::Unknown if chunked && encode::is_chunked(length) => Body::Chunked,
            Length::Unknown => Body::UntilClose,
        };
    }

    /// Appends to what goes first, or, when something stands behind that already, behind all of it.
    fn head_with(&mut self, write: impl FnOnce(&mut BytesMut)) {
        if self.tail.is_empty() {
            let before = self.head.len();
            write(&mut self.head);
            self.queued += self.head.len() - before;
            self.large |= self.head.len() > LARGE;
        } else {
            let mut bytes = BytesMut::new();
            write(&mut bytes);
            self.queued += bytes.len();
            self.tail.push_back(bytes.freeze());
        }
    }

    fn push(&mut self, data: Bytes) {
        if data.len() < SMALL && self.tail.is_empty() {
            self.head_with(|out| out.extend_from_slice(&data));
        } else if !data.is_empty() {
            self.queued += data.len();
            self.tail.push_back(data);
        }
    }

    /// Takes a piece of the body.
    pub(super) fn data(&mut self, data: Bytes) -> Result<(), WrongLength> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.body {
            Body::Length(left) => match left.checked_sub(data.len() as u64) {
                Some(rest) => {
                    *left = rest;
                    self.push(data);
                }
                None => return self.broken(),
            },
            Body::Chunked => {
                let len = data.len();
                self.head_with(|out| encode::chunk_size(len, out));
                self.push(data);
                self.head_with(|out| out.extend_from_slice(b"\r\n"));
            }
            Body::UntilClose => self.push(data),
            Body::Ignored => {}
            Body::Done | Body::Broken => return self.broken(),
        }
        Ok(())
    }

    /// Whether a body of announced length may be written past what is queued: nothing is.
    pub(super) fn takes_bulk(&self) -> bool {
        matches!(self.body, Body::Length(_)) && self.queued == 0
    }

    /// Counts a piece of the body that is written past what is queued.
    pub(super) fn bulk(&mut self, len: usize) -> Result<(), WrongLength> {
        if let Body::Length(left) = &mut self.body
            && let Some(rest) = left.checked_sub(len as u64)
        {
            *left = rest;
            return Ok(());
        }
        self.broken()
    }

    /// Ends the body.
    pub(super) fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), WrongLength> {
        match self.body {
            Body::Chunked => self.head_with(|out| {
                out.extend_from_slice(b"0\r\n");
                encode::trailers(trailers.unwrap_or(&HeaderMap::new()), out);
            }),
            Body::Length(0) | Body::UntilClose | Body::Ignored | Body::Done => {}
            Body::Length(_) | Body::Broken => return self.broken(),
        }
        self.body = Body::Done;
        Ok(())
    }

    fn broken(&mut self) -> Result<(), WrongLength> {
        self.body = Body::Broken;
        Err(WrongLength)
    }

    /// Whether the message is complete, though perhaps not yet written.
    pub(super) fn is_done(&self) -> bool {
        self.body == Body::Done
    }

    /// Ready when more can be taken.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>, io: &mut Stream) -> Poll<io::Result<()>> {
        if self.queued < self.full { Poll::Ready(Ok(())) } else { self.poll_write(cx, io) }
    }

    /// Writes everything, to the last buffer.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, io: &mut Stream) -> Poll<io::Result<()>> {
        ready!(self.poll_write(cx, io))?;
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, io: &mut Stream) -> Poll<io::Result<()>> {
        let mut room = MOST_WRITTEN;
        while self.queued > 0 {
            if room == 0 {
                return give_way(cx);
            }
            let written = if self.tail.is_empty() {
                let part = self.head.get(..room).unwrap_or(&self.head);
                ready!(Pin::new(&mut *io).poll_write(cx, part))?
            } else {
                let mut slices = [IoSlice::new(&[]); PIECES];
                let pieces = std::iter::once(&*self.head).chain(self.tail.iter().map(|piece| &**piece));
                let (mut count, mut left) = (0, room);
                for (slice, piece) in slices.iter_mut().zip(pieces.filter(|piece| !piece.is_empty())) {
                    let part = piece.get(..left).unwrap_or(piece);
                    left -= part.len();
                    *slice = IoSlice::new(part);
                    count += 1;
                }
                let slices = slices.get(..count).unwrap_or_default();
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            room = room.saturating_sub(written);
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, written: usize) {
        self.queued -= written.min(self.queued);
        let from_head = written.min(self.head.len());
        self.head.advance(from_head);
        let mut left = written - from_head;
        while left > 0 {
            let Some(piece) = self.tail.front_mut() else { return };
            let part = left.min(piece.len());
            piece.advance(part);
            left -= part;
            if piece.is_empty() {
                self.tail.pop_front();
            }
        }
        if self.queued == 0 {
            // What a large head took is not to be held while its answer is awaited.
            if std::mem::take(&mut self.large) {
                self.head = BytesMut::new();
            } else {
                self.head.clear();
            }
        }
    }

    /// Gives the memory back while nothing is to be written.
    pub(super) fn rest(&mut self) {
        if self.queued == 0 {
            self.head = BytesMut::new();
        }
    }
}
