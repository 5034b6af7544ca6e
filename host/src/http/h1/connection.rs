//! An HTTP/1 connection, of either side.
//!
//! Reading and writing go on at the same time, from within one task: every function borrows what it needs for the
//! time of one poll.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::io::AsyncWrite;

use crate::http::body::Frame;
use crate::http::h1::Length;
use crate::http::h1::head::{Limits, RequestHead, ResponseHead};
use crate::http::h1::reader::{BodyError, HeadFailure, Reader};
use crate::http::h1::writer::{Writer, WrongLength};
use crate::http::message::{Request, Response, Scheme};
use crate::net::splice::Pipe;
use crate::net::stream::Stream;

pub use crate::http::h1::encode::Persistence;
pub use crate::http::h1::reader::HeadFailure as Failure;
pub use crate::http::h1::writer::WrongLength as BodyMismatch;

/// A connection.
#[derive(Debug)]
pub struct Connection {
    io: RefCell<Stream>,
    reader: RefCell<Reader>,
    writer: RefCell<Writer>,
    /// Whether it may not carry another exchange, whatever it looks like.
    retired: Cell<bool>,
}

/// Bytes that may come from a client while its request is being answered: what it sends ahead.
const READ_AHEAD: usize = 8 * 1024;

impl Connection {
    /// A connection on which nothing was said yet.
    pub fn new(io: Stream, limits: Limits) -> Self {
        Self {
            io: RefCell::new(io),
            reader: RefCell::new(Reader::new(limits)),
            writer: RefCell::new(Writer::new(limits.buffer)),
            retired: Cell::new(false),
        }
    }

    /// A connection from which some bytes were read already.
    pub fn with_first(io: Stream, limits: Limits, first: Bytes) -> Self {
        let connection = Self::new(io, limits);
        connection.reader.borrow_mut().put_back(&first);
        connection
    }

    /// Reads a request; `None` when the client closed the connection in order.
    pub fn poll_request(
        &self,
        cx: &mut Context<'_>,
        scheme: Scheme,
    ) -> Poll<Result<Option<RequestHead>, HeadFailure>> {
        self.reader.borrow_mut().poll_request(cx, &mut self.io.borrow_mut(), scheme)
    }

    /// Whether bytes are here that were not taken yet.
    pub fn has_buffered(&self) -> bool {
        self.reader.borrow().buffered() > 0
    }

    /// Reads the response to a request with the method `to`.
    pub fn poll_response(
        &self,
        cx: &mut Context<'_>,
        to: &Method,
    ) -> Poll<Result<ResponseHead, HeadFailure>> {
        self.reader.borrow_mut().poll_response(cx, &mut self.io.borrow_mut(), to)
    }

    /// Reads a piece of the body; `None` at its end.
    pub fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, BodyError>> {
        self.reader.borrow_mut().poll_frame(cx, &mut self.io.borrow_mut())
    }

    /// What is to come of a body that the kernel may move by itself: its length is known, nothing of it was read ahead,
    /// and nothing is encrypted. 0 where that is not so.
    pub fn bulk_left(&self) -> u64 {
        if self.io.borrow().as_tcp().is_some() { self.reader.borrow().bulk_left() } else { 0 }
    }

    /// Moves a piece of such a body into a pipe; how many bytes.
    pub fn poll_fill(&self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<Result<usize, BodyError>> {
        let io = self.io.borrow();
        let Some(socket) = io.as_tcp() else { return Poll::Ready(Err(not_plain().into())) };
        self.reader.borrow_mut().poll_fill_pipe(cx, socket, pipe)
    }

    /// Reads and throws away what is already here of a body; true when that was all of it.
    pub fn discard_buffered(&self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Ok(Some(_))) = self.poll_frame(&mut cx) {}
        self.reader.borrow().is_done()
    }

    /// Whether the body that is being read is at its end, as far as the bytes tell that are here already.
    pub fn at_end(&self) -> bool {
        self.reader.borrow_mut().at_end()
    }

    /// Ready when the peer has closed the connection. What it sends meanwhile is kept, up to a limit; behind
    /// that nothing is noticed.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut reader = self.reader.borrow_mut();
        loop {
            if reader.buffered() >= READ_AHEAD {
                return Poll::Pending;
            }
            match ready!(reader.poll_fill(cx, &mut self.io.borrow_mut(), READ_AHEAD)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }

    /// Whether the connection can carry another exchange: nothing is left of the last one, and nothing has come
    /// since that nobody asked for. One that cannot must be dropped.
    pub fn is_reusable(&self) -> bool {
        let idle = self.is_between_messages() && self.reader.borrow().buffered() == 0;
        idle && !self.retired.get() && self.io.borrow_mut().is_silent()
    }

    /// Has the connection end with the exchange that is under way.
    pub fn retire(&self) {
        self.retired.set(true);
    }

    /// Whether both messages are complete.
    pub fn is_between_messages(&self) -> bool {
        self.reader.borrow().is_done() && self.writer.borrow().is_done()
    }

    /// Begins a request.
    pub fn send_request(&self, request: &Request, length: Length, upgrade: bool) {
        self.writer.borrow_mut().request(request, length, upgrade);
    }

    /// Begins a response to a request with the method `to`. `chunked`: whether the client understands the chunked
    /// coding.
    pub fn send_response(
        &self,
        response: &Response,
        length: Length,
        to: &Method,
        chunked: bool,
        persistence: Persistence,
    ) {
        self.writer.borrow_mut().response(response, length, to, chunked, persistence);
    }

    /// Tells the client to send its body.
    pub fn send_continue(&self) {
        self.writer.borrow_mut().raw(b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    /// Takes a piece of the body.
    ///
    /// # Errors
    /// When it is more than was announced.
    pub fn send_data(&self, data: Bytes) -> Result<(), WrongLength> {
        self.writer.borrow_mut().data(data)
    }

    /// Whether the kernel may write the body by itself: its length was announced, nothing waits to be written before it, and
    /// nothing is encrypted.
    pub fn takes_bulk(&self) -> bool {
        self.io.borrow().as_tcp().is_some() && self.writer.borrow().takes_bulk()
    }

    /// Counts a piece of the body that is given to [`Self::poll_drain`].
    ///
    /// # Errors
    /// When it is more than was announced.
    pub fn send_bulk(&self, len: usize) -> Result<(), WrongLength> {
        self.writer.borrow_mut().bulk(len)
    }

    /// Writes from a pipe; how many bytes.
    pub fn poll_drain(&self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<io::Result<usize>> {
        match self.io.borrow().as_tcp() {
            Some(socket) => pipe.poll_drain(cx, socket),
            None => Poll::Ready(Err(not_plain())),
        }
    }

    /// Ends the body.
    ///
    /// # Errors
    /// When it is less than was announced.
    pub fn send_end(&self, trailers: Option<&HeaderMap>) -> Result<(), WrongLength> {
        self.writer.borrow_mut().end(trailers)
    }

    /// Ready when more of a body can be taken.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.borrow_mut().poll_ready(cx, &mut self.io.borrow_mut())
    }

    /// Writes everything that was taken.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.borrow_mut().poll_flush(cx, &mut self.io.borrow_mut())
    }

    /// Writes everything that was taken.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn flush(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Closes the writing half, then reads and throws away what the peer still sends, up to `limit` bytes: closing
    /// at once could reset the connection before the peer has read the answer (RFC 9112 section 9.6).
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn linger(&self, limit: usize) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self.io.borrow_mut()).poll_shutdown(cx)).await?;
        let mut thrown = self.reader.borrow_mut().take_buffered().len();
        while thrown < limit {
            let read =
                poll_fn(|cx| self.reader.borrow_mut().poll_fill(cx, &mut self.io.borrow_mut(), READ_AHEAD));
            match read.await? {
                0 => return Ok(()),
                read => thrown += read,
            }
            self.reader.borrow_mut().take_buffered();
        }
        Ok(())
    }

    /// Gives back the memory in which messages are read and written, when nothing is in it.
    pub fn rest(&self) {
        self.reader.borrow_mut().rest();
        self.writer.borrow_mut().rest();
    }

    /// The connection itself, and what was read from it beyond the last message.
    pub fn into_parts(self) -> (Stream, Bytes) {
        let rest = self.reader.into_inner().take_buffered();
        (self.io.into_inner(), rest)
    }

    /// Looks at the connection itself.
    pub fn with_stream<T>(&self, look: impl FnOnce(&Stream) -> T) -> T {
        look(&self.io.borrow())
    }
}

/// Who asks for bulk has asked before whether it can be had.
fn not_plain() -> io::Error {
    io::ErrorKind::Unsupported.into()
}
