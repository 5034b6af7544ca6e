//! Either side of an exchange, whatever it speaks: where a body comes from, and where one goes.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use crate::http::body::Frame;
use crate::http::h1::connection::BodyMismatch;
use crate::http::h1::{self, BodyError};
use crate::http::h2::Incoming;
use crate::http::pipe::{self, BrokenOff};

/// Where a body comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// There is none.
    Empty,
    /// HTTP/1.
    H1(&'a h1::Connection),
    /// HTTP/2.
    H2(&'a Incoming),
}

impl Source<'_> {
    /// Reads a piece; `None` at the end.
    pub fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, BodyError>> {
        match self {
            Self::Empty => Poll::Ready(Ok(None)),
            Self::H1(connection) => connection.poll_frame(cx),
            Self::H2(incoming) => incoming.poll_frame(cx),
        }
    }

    /// Whether nothing comes any more, as far as that is known without waiting.
    pub fn at_end(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::H1(connection) => connection.at_end(),
            Self::H2(incoming) => incoming.at_end(),
        }
    }
}

/// Where a body goes.
#[derive(Debug, Clone, Copy)]
pub enum Sink<'a> {
    /// HTTP/1.
    H1(&'a h1::Connection),
    /// HTTP/2.
    H2(&'a pipe::Writer),
}

/// Why a body cannot be sent to its end.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Nobody takes it any more.
    #[error(transparent)]
    Gone(#[from] BrokenOff),
    /// It is not as long as was announced.
    #[error(transparent)]
    Length(#[from] BodyMismatch),
}

impl Sink<'_> {
    /// Ready when more can be taken.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        match self {
            Self::H1(connection) => connection.poll_ready(cx).map_err(SinkError::Io),
            Self::H2(pipe) => pipe.poll_ready(cx).map_err(SinkError::Gone),
        }
    }

    /// Takes a piece.
    ///
    /// # Errors
    /// When it is more than was announced.
    pub fn data(&self, data: Bytes) -> Result<(), SinkError> {
        match self {
            Self::H1(connection) => Ok(connection.send_data(data)?),
            Self::H2(pipe) => {
                pipe.data(data);
                Ok(())
            }
        }
    }

    /// Ends the body.
    ///
    /// # Errors
    /// When it is less than was announced.
    pub fn end(&self, trailers: Option<HeaderMap>) -> Result<(), SinkError> {
        match self {
            Self::H1(connection) => Ok(connection.send_end(trailers.as_ref())?),
            Self::H2(pipe) => {
                pipe.end(trailers);
                Ok(())
            }
        }
    }

    /// Sends what was taken on its way.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        match self {
            Self::H1(connection) => connection.poll_flush(cx).map_err(SinkError::Io),
            Self::H2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Ready when all of it has gone on its way: as far as a window of HTTP/2 allows, too.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        match self {
            Self::H1(connection) => connection.poll_flush(cx).map_err(SinkError::Io),
            Self::H2(pipe) => pipe.poll_drained(cx).map(Ok),
        }
    }
}
