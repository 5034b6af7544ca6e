//! The reading half of a connection: heads, and then the body that each announces.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::Method;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::http::body::Frame;
use crate::http::h1::Length;
use crate::http::h1::chunked::{Chunked, Step};
use crate::http::h1::head::{
    Limits, RequestHead, ResponseHead, check_beginning, find_end, parse_request, parse_response,
    parse_trailers, skip_empty_line,
};
use crate::http::h1::refused::HeadError;
use crate::http::message::Scheme;
use crate::net::skew::skew;
use crate::net::splice::Pipe;
use crate::net::stream::Stream;

/// Why a body cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The chunked coding is violated.
    #[error("malformed chunk")]
    Chunk,
    /// The trailers are refused.
    #[error("malformed trailers: {0}")]
    Trailers(HeadError),
    /// The connection ended before the body.
    #[error("the body ends too early")]
    Cut,
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// An HTTP/2 stream was reset.
    #[error("the stream was reset")]
    Reset,
}

impl BodyError {
    /// The words for what is refused of a body.
    pub const REFUSED: [&'static str; 2] = ["malformed_chunk", "malformed_trailers"];

    /// Why the body is refused, as metrics have it; `None` when it could only not be read to its end.
    pub const fn refused(&self) -> Option<&'static str> {
        let [chunk, trailers] = Self::REFUSED;
        match self {
            Self::Chunk => Some(chunk),
            Self::Trailers(_) => Some(trailers),
            Self::Cut | Self::Io(_) | Self::Reset => None,
        }
    }
}

/// The reading half.
#[derive(Debug)]
pub(super) struct Reader {
    buffer: BytesMut,
    /// How far the buffer was searched for the end of a head.
    scanned: usize,
    /// Whether there was an empty line before the head.
    skipped: bool,
    body: Body,
    limits: Limits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Done,
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    /// It was malformed: what follows it is nothing, and the connection carries no further message.
    Broken,
}

/// Room for a head, and for the small body behind it.
const HEAD_ROOM: usize = 8 * 1024;

/// Less room than this is of no use to anybody.
pub(super) const LEAST_ROOM: usize = 4 * 1024;

impl Reader {
    pub(super) fn new(limits: Limits) -> Self {
        Self { buffer: BytesMut::new(), scanned: 0, skipped: false, body: Body::Done, limits }
    }

    /// Bytes that were read and that nobody has taken.
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Gives the memory back while nothing is to be read.
    pub(super) fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// Takes bytes as if they had just been read.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the bytes that were read and that nobody has taken.
    pub(super) fn take_buffered(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }

    /// Whether the body has been read to its end.
    pub(super) fn is_done(&self) -> bool {
        self.body == Body::Done
    }

    /// Begins a body.
    pub(super) fn begin_body(&mut self, length: Length, chunked: bool) {
        self.body = match length {
            Length::None => Body::Done,
            Length::Known(length) => Body::Length(length),
            Length::Unknown if chunked => Body::Chunked(Chunked::Size),
            Length::Unknown => Body::UntilClose,
        };
    }

    /// Room for a piece of a body that goes on.
    fn room(&self) -> usize {
        self.limits.buffer.max(LEAST_ROOM)
    }

    /// Reads more from the connection; 0 at its end.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Stream,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        if self.buffer.is_empty()
            && let Some(socket) = io.as_tcp()
        {
            // A connection that has nothing to say is given no buffer.
            ready!(socket.poll_read_ready(cx))?;
        }
        // Who sends a byte at a time is not to have the buffer grow by it.
        if self.buffer.capacity() - self.buffer.len() < LEAST_ROOM {
            self.buffer.reserve(room);
            if room > HEAD_ROOM {
                // It is large enough for what it prevents, and pieces of a body are passed on from where they are.
                skew(&mut self.buffer);
            }
        }
        let read = pin!(io.read_buf(&mut self.buffer)).poll(cx);
        self.rest();
        read
    }

    /// Reads a head; `None` when the connection ended before its first byte. `request`: whether one is to come.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Stream,
        request: bool,
    ) -> Poll<Result<Option<Bytes>, HeadFailure>> {
        loop {
            if request && self.scanned == 0 {
                self.skipped = self.skipped || skip_empty_line(&mut self.buffer);
                check_beginning(&self.buffer)?;
            }
            if let Some(end) = find_end(&self.buffer, &mut self.scanned)? {
                if end > self.limits.bytes {
                    return Poll::Ready(Err(self.too_large(request).into()));
                }
                (self.scanned, self.skipped) = (0, false);
                return Poll::Ready(Ok(Some(self.buffer.split_to(end).freeze())));
            }
            if self.buffer.len() >= self.limits.bytes {
                return Poll::Ready(Err(self.too_large(request).into()));
            }
            match ready!(self.poll_fill(cx, io, HEAD_ROOM.min(self.room()))) {
                Ok(0) if self.buffer.is_empty() => return Poll::Ready(Ok(None)),
                Ok(0) => return Poll::Ready(Err(HeadFailure::Cut)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(HeadFailure::Io(error))),
            }
        }
    }

    /// What of a head is too large.
    #[cold]
    fn too_large(&self, request: bool) -> HeadError {
        let line = memchr::memchr(b'\n', &self.buffer).unwrap_or(self.buffer.len());
        let target = request && line > self.limits.target.min(self.limits.bytes);
        if target { HeadError::TargetTooLong } else { HeadError::TooLarge }
    }

    /// Reads a request; `None` when the connection ended in order.
    pub(super) fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Stream,
        scheme: Scheme,
    ) -> Poll<Result<Option<RequestHead>, HeadFailure>> {
        let Some(head) = ready!(self.poll_head(cx, io, true))? else { return Poll::Ready(Ok(None)) };
        let head = parse_request(head, scheme, &self.limits)?;
        self.begin_body(head.length, true);
        Poll::Ready(Ok(Some(head)))
    }

    /// Reads a response to a request with the method `to`. The end of the connection is none.
    pub(super) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Stream,
        to: &Method,
    ) -> Poll<Result<ResponseHead, HeadFailure>> {
        let Some(head) = ready!(self.poll_head(cx, io, false))? else {
            return Poll::Ready(Err(HeadFailure::Cut));
        };
        let head = parse_response(head, to, &self.limits)?;
        let chunked = head.response.headers.contains_key(http::header::TRANSFER_ENCODING);
        self.begin_body(head.length, chunked);
        Poll::Ready(Ok(head))
    }

    /// Reads a piece of the body; `None` at its end.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Stream,
    ) -> Poll<Result<Option<Frame>, BodyError>> {
        loop {
            match self.next_frame() {
                Ok(Some(frame)) => return Poll::Ready(Ok(frame)),
                Ok(None) => {}
                Err(error) => {
                    self.body = Body::Broken;
                    return Poll::Ready(Err(error));
                }
            }
            let read = ready!(self.poll_fill(cx, io, self.room()))?;
            if read == 0 {
                if self.body == Body::UntilClose {
                    self.body = Body::Done;
                    return Poll::Ready(Ok(None));
                }
                return Poll::Ready(Err(BodyError::Cut));
            }
        }
    }

    /// What is to come of a body of known length, when nothing of it is here already; otherwise 0.
    pub(super) fn bulk_left(&self) -> u64 {
        if let Body::Length(left) = self.body
            && self.buffer.is_empty()
        {
            return left;
        }
        0
    }

    /// Moves a piece of such a body into a pipe; how many bytes.
    pub(super) fn poll_fill_pipe(
        &mut self,
        cx: &mut Context<'_>,
        socket: &TcpStream,
        pipe: &mut Pipe,
    ) -> Poll<Result<usize, BodyError>> {
        let left = self.bulk_left();
        let read = ready!(pipe.poll_fill(cx, socket, left))?;
        if read == 0 {
            return Poll::Ready(Err(BodyError::Cut));
        }
        let left = left.saturating_sub(read as u64);
        self.body = if left == 0 { Body::Done } else { Body::Length(left) };
        Poll::Ready(Ok(read))
    }

    /// What the bytes that are here give: `Some(None)` is the end.
    #[expect(clippy::option_option, reason = "nothing yet, the end, or a frame")]
    fn next_frame(&mut self) -> Result<Option<Option<Frame>>, BodyError> {
        let len = match &mut self.body {
            Body::Done => return Ok(Some(None)),
            Body::Broken => return Err(BodyError::Chunk),
            _ if self.buffer.is_empty() => return Ok(None),
            Body::Length(left) => {
                let here =
                    usize::try_from(*left).map_or(self.buffer.len(), |left| left.min(self.buffer.len()));
                *left -= here as u64;
                if *left == 0 {
                    self.body = Body::Done;
                }
                here
            }
            Body::UntilClose => self.buffer.len(),
            Body::Chunked(chunked) => match chunked.step(&mut self.buffer)? {
                Step::More => return Ok(None),
                Step::Data(len) => {
                    chunked.taken(len);
                    len
                }
                Step::Trailers => return self.trailers(),
            },
        };
        Ok(Some(Some(Frame::Data(self.buffer.split_to(len).freeze()))))
    }

    /// The end of a chunked body: its trailers, or the empty line where they would be.
    #[expect(clippy::option_option, reason = "nothing yet, the end, or a frame")]
    fn trailers(&mut self) -> Result<Option<Option<Frame>>, BodyError> {
        if self.buffer.starts_with(b"\r\n") {
            let _ = self.buffer.split_to(2);
            self.body = Body::Done;
            self.scanned = 0;
            return Ok(Some(None));
        }
        match find_end(&self.buffer, &mut self.scanned).map_err(BodyError::Trailers)? {
            Some(end) if end > self.limits.bytes => Err(BodyError::Trailers(HeadError::TooLarge)),
            Some(end) => {
                let section = self.buffer.split_to(end).freeze();
                self.scanned = 0;
                self.body = Body::Done;
                let trailers = parse_trailers(section, &self.limits).map_err(BodyError::Trailers)?;
                Ok(Some(Some(Frame::Trailers(trailers))))
            }
            None if self.buffer.len() >= self.limits.bytes => Err(BodyError::Trailers(HeadError::TooLarge)),
            None => Ok(None),
        }
    }

    /// Whether the body is at its end, as far as the bytes tell that are here already.
    pub(super) fn at_end(&mut self) -> bool {
        if let Body::Chunked(chunked) = &mut self.body {
            // A violation shows when the body is read on.
            let trailers = matches!(chunked.step(&mut self.buffer), Ok(Step::Trailers));
            if trailers && self.buffer.starts_with(b"\r\n") {
                let _ = self.buffer.split_to(2);
                self.body = Body::Done;
            }
        }
        self.is_done()
    }
}

/// Why there is no head.
#[derive(Debug, thiserror::Error)]
pub enum HeadFailure {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] HeadError),
    /// The connection ended in the middle of it, or where it should have been.
    #[error("the connection was closed")]
    Cut,
    /// The connection failed.
    #[error(transparent)]
    Io(io::Error),
}
