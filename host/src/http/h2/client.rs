//! HTTP/2 towards endpoints.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme as UriScheme};
use http::{Uri, header};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::spawn_local;

use crate::http::h1::Length;
use crate::http::h2::work::{Part, Work};
use crate::http::h2::{Incoming, Outgoing, PING, PONG, explain};
use crate::http::message::{Request, Response, Scheme};
use crate::http::pipe;
use crate::net::stream::Stream;

/// The windows that Envoy's edge guide recommends towards endpoints.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Spawns on the worker.
#[derive(Debug, Clone)]
struct OnWorker(Rc<Work>);

impl<F> hyper::rt::Executor<F> for OnWorker
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        spawn_local(Rc::clone(&self.0).of(future));
    }
}

/// A connection to an endpoint that speaks HTTP/2. Clones share it.
#[derive(Clone)]
pub struct Client {
    sender: SendRequest<Outgoing>,
    /// What it takes of the worker.
    work: Rc<Work>,
    /// Whether an exchange has found it closed, before the runtime has.
    over: Rc<Cell<bool>>,
}

/// A response that is awaited.
pub type Answer = Pin<Box<dyn Future<Output = Result<(Response, Length, Incoming), NoAnswer>>>>;

/// Why there is no response.
#[derive(Debug)]
pub struct NoAnswer {
    /// Why, in words.
    pub reason: String,
    /// Whether it is the connection that failed, or the endpoint that did not begin the request: on another
    /// connection it may succeed. Else the endpoint itself reset the stream.
    pub elsewhere: bool,
    /// Whether the connection is over.
    over: bool,
}

impl NoAnswer {
    /// A failure that has nothing to do with the connection.
    pub fn here(reason: String) -> Self {
        Self { reason, elsewhere: false, over: false }
    }

    fn of(error: &hyper::Error) -> Self {
        let stream = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
        let reset = stream.filter(|stream| stream.is_reset());
        let elsewhere = reset.is_none_or(|reset| reset.reason() == Some(h2::Reason::REFUSED_STREAM));
        Self { reason: explain(error), elsewhere, over: reset.is_none() }
    }
}

impl Client {
    /// Begins to speak HTTP/2 over a connection. `held` lives as long as the connection does.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn new(stream: Stream, held: impl Sized + 'static) -> Result<Self, String> {
        let io = TokioIo::new(stream);
        let work = Rc::<Work>::default();
        let (client, connection) = hyper::client::conn::http2::Builder::new(OnWorker(Rc::clone(&work)))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(64 * 1024)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .handshake(io)
            .await
            .map_err(|error| error.to_string())?;
        spawn_local(Rc::clone(&work).of(async move {
            let _held = held;
            // How it ended shows in the exchanges that were under way.
            let _ = connection.await;
        }));
        Ok(Self { sender: client, work, over: Rc::default() })
    }

    /// Whether the connection takes further requests.
    pub fn is_open(&self) -> bool {
        !self.over.get() && !self.sender.is_closed()
    }

    /// Sends a request, whose body goes into the pipe that is returned. The stream is open for as long as its part is kept.
    ///
    /// # Errors
    /// When the request cannot be put into HTTP/2's form.
    pub fn send(
        &mut self,
        request: &Request,
        length: Length,
    ) -> Result<(Answer, pipe::Writer, Part), String> {
        let (writer, pipe) = pipe::pipe();
        if length == Length::None {
            writer.end(None);
        }
        let uri = Uri::builder()
            .scheme(match request.scheme {
                Scheme::Http => UriScheme::HTTP,
                Scheme::Https => UriScheme::HTTPS,
            })
            .authority(Authority::try_from(request.authority.as_bytes()).map_err(|error| error.to_string())?)
            .path_and_query(
                PathAndQuery::try_from(request.path.as_bytes()).map_err(|error| error.to_string())?,
            )
            .build()
            .map_err(|error| error.to_string())?;
        let mut message = http::Request::new(Outgoing { pipe, task: None, rest: Bytes::new() });
        *message.method_mut() = request.method.clone();
        *message.uri_mut() = uri;
        *message.version_mut() = http::Version::HTTP_2;
        *message.headers_mut() = request.headers.clone();
        match length {
            Length::Known(length) => {
                message.headers_mut().insert(header::CONTENT_LENGTH, length.into());
            }
            Length::None | Length::Unknown => {
                message.headers_mut().remove(header::CONTENT_LENGTH);
            }
        }
        let answer = self.sender.send_request(message);
        let over = Rc::clone(&self.over);
        let answer = Box::pin(async move {
            let answered = answer.await.map_err(|error| NoAnswer::of(&error));
            let answered = answered.inspect_err(|error| over.set(over.get() || error.over));
            let (parts, body) = answered?.into_parts();
            let body = Incoming::new(body, None);
            let length = body.length(&parts.headers);
            Ok((Response { status: parts.status, headers: parts.headers }, length, body))
        });
        Ok((answer, writer, self.work.open()))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method, Response as HttpResponse};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::http::message::Version;

    #[tokio::test(flavor = "local")]
    async fn streams_are_told_what_their_connection_takes_of_the_worker() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = spawn_local(async move {
            let (socket, _) = listener.accept().await.expect("a connection");
            let mut connection = h2::server::handshake(socket).await.expect("HTTP/2");
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                respond.send_response(HttpResponse::new(()), true).expect("a stream");
            }
        });
        let socket = TcpStream::connect(address).await.expect("a connection");
        let mut client = Client::new(Stream::Tcp(socket), ()).await.expect("HTTP/2");
        let request = Request {
            method: Method::GET,
            scheme: Scheme::Http,
            authority: HeaderValue::from_static("up"),
            path: HeaderValue::from_static("/"),
            version: Version::Http2,
            headers: HeaderMap::new(),
        };
        for _ in 0..2 {
            let (answer, _, part) = client.send(&request, Length::None).expect("a request");
            let (other, _, beside) = client.send(&request, Length::None).expect("a request");
            answer.await.expect("an answer");
            other.await.expect("an answer");
            assert!(!part.take().is_zero() && !beside.take().is_zero(), "nothing is done for nothing");
        }
        drop(client);
        server.abort();
    }
}
