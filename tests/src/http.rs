//! HTTP for tests: clients by hyper and by hand, upstreams by hyper.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_rustls::TlsAcceptor;

use crate::upstream::Upstream;
use crate::wait::soon;

/// A body of any kind.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A body with these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A body with these bytes, and trailers.
pub fn with_trailers(bytes: impl Into<Bytes>, trailers: HeaderMap) -> Body {
    let end = std::future::ready(Some(Ok(trailers)));
    Full::new(bytes.into()).with_trailers(end).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A body that is fed by hand. It ends when the feed is dropped.
struct Fed(mpsc::UnboundedReceiver<Frame<Bytes>>);

impl hyper::body::Body for Fed {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

/// A body, and what feeds it.
pub fn fed() -> (mpsc::UnboundedSender<Frame<Bytes>>, Body) {
    let (feed, fed) = mpsc::unbounded_channel();
    (feed, Fed(fed).boxed_unsync())
}

/// A response that has come whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The trailers.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// A header as text; empty when it is not there.
    pub fn header(&self, name: &str) -> String {
        self.headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .unwrap_or_default()
    }
}

/// A client with one connection.
#[derive(Debug)]
pub enum Client {
    /// HTTP/1.1.
    H1(hyper::client::conn::http1::SendRequest<Body>),
    /// HTTP/2.
    H2(hyper::client::conn::http2::SendRequest<Body>),
}

impl Client {
    /// Speaks HTTP/1.1 in the clear.
    ///
    /// # Panics
    /// When the connection fails.
    pub async fn h1(address: SocketAddr) -> Self {
        Self::h1_over(TcpStream::connect(address).await.expect("it listens")).await
    }

    /// Speaks HTTP/2 in the clear, with prior knowledge.
    ///
    /// # Panics
    /// When the connection fails.
    pub async fn h2(address: SocketAddr) -> Self {
        Self::h2_over(TcpStream::connect(address).await.expect("it listens")).await
    }

    /// Speaks through TLS what is agreed on.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn tls(address: SocketAddr, name: &str, config: ClientConfig) -> std::io::Result<Self> {
        let stream = crate::tls::connect(address, name, config).await?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(if h2 { Self::h2_over(stream).await } else { Self::h1_over(stream).await })
    }

    /// Speaks HTTP/1.1 over a connection.
    ///
    /// # Panics
    /// Never: nothing is said yet.
    pub async fn h1_over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (client, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(io)).await.expect("nothing is said yet");
        tokio::spawn(connection.with_upgrades());
        Self::H1(client)
    }

    /// Speaks HTTP/2 over a connection.
    ///
    /// # Panics
    /// When the preface cannot be sent.
    pub async fn h2_over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (client, connection) = builder.handshake(TokioIo::new(io)).await.expect("the preface");
        tokio::spawn(connection);
        Self::H2(client)
    }

    /// Sends a request and returns the head of the answer.
    ///
    /// # Errors
    /// When the exchange fails.
    pub async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::H1(client) => {
                client.ready().await?;
                client.send_request(request).await
            }
            Self::H2(client) => {
                client.ready().await?;
                client.send_request(request).await
            }
        }
    }

    /// Sends a request and returns the whole answer.
    ///
    /// # Errors
    /// When the exchange fails.
    pub async fn call(&mut self, request: Request<Body>) -> hyper::Result<Answer> {
        let (parts, body) = soon("the head of an answer", self.send(request)).await?.into_parts();
        let body = soon("a body", body.collect()).await?;
        let trailers = body.trailers().cloned();
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes(), trailers })
    }

    /// Sends a GET for a path, with `example.com` as the host.
    ///
    /// # Panics
    /// When the exchange fails.
    pub async fn get(&mut self, path: &str) -> Answer {
        let request = self.request("GET", path).body(empty()).expect("a request");
        self.call(request).await.expect("an answer")
    }

    /// A request that this client can send, with `example.com` as the host.
    pub fn request(&self, method: &str, path: &str) -> http::request::Builder {
        match self {
            Self::H1(_) => Request::builder().method(method).uri(path).header("host", "example.com"),
            Self::H2(_) => Request::builder().method(method).uri(format!("http://example.com{path}")),
        }
    }
}

/// A GET on a connection of its own.
///
/// # Panics
/// When the exchange fails.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    Client::h1(address).await.get(path).await
}

/// Reads a head by hand, up to and with its empty line.
///
/// # Panics
/// When the connection ends before.
pub async fn read_head(socket: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("a head", socket.read_u8()).await.expect("all of the head"));
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Sends some bytes, and reads until the connection ends.
///
/// # Panics
/// When the connection fails.
pub async fn raw(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    socket.write_all(bytes.as_ref()).await.expect("the gateway takes it");
    let mut answer = Vec::new();
    // A reset after the answer is an end, too.
    let _ = soon("the end of the connection", socket.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// An upstream that holds requests for `/held` until it is told to answer them, and answers others at once. The sender
/// tells it, and counts those that are held.
pub async fn holding() -> (Upstream, broadcast::Sender<()>) {
    let (answer, _) = broadcast::channel(1);
    let waiting = answer.clone();
    let up = upstream(move |request| {
        let held = (request.uri().path() == "/held").then(|| waiting.subscribe());
        async move {
            if let Some(mut told) = held {
                told.recv().await.expect("the test says so");
            }
            Response::new(full("answered"))
        }
    });
    (up.await, answer)
}

/// An upstream that answers with `answer`, over HTTP/1.1 and HTTP/2.
pub async fn upstream<F>(answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static) -> Upstream
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    Upstream::new(move |socket| {
        let answer = answer.clone();
        async move { serve(socket, answer).await }
    })
    .await
}

/// A request that an upstream has received, and where the answer goes.
pub type Asked = (Request<Incoming>, oneshot::Sender<Response<Body>>);

/// An upstream that hands every request to the test, and answers when and what the test says.
pub async fn asking() -> (Upstream, mpsc::UnboundedReceiver<Asked>) {
    let (ask, asked) = mpsc::unbounded_channel();
    let upstream = upstream(move |request| {
        let (answer, answered) = oneshot::channel();
        // A test that is over wants no more requests.
        let _ = ask.send((request, answer));
        async move {
            match answered.await {
                Ok(response) => response,
                // A test that answers nothing wants the client to wait.
                Err(_) => std::future::pending().await,
            }
        }
    });
    (upstream.await, asked)
}

/// An upstream behind TLS.
pub async fn tls_upstream<F>(
    config: ServerConfig,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> Upstream
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Upstream::new(move |socket| {
        let (answer, acceptor) = (answer.clone(), acceptor.clone());
        async move {
            if let Ok(stream) = acceptor.accept(socket).await {
                serve(stream, answer).await;
            }
        }
    })
    .await
}

/// Answers the requests of one connection, over HTTP/1.1 and HTTP/2.
pub async fn serve<F>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
) where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    // A client that goes is no failure of the test.
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(io), service).await;
}

/// An upstream that tells what it got: method, target and headers, a line each, then the body.
pub async fn mirror() -> Upstream {
    upstream(reflect).await
}

/// What [`mirror`] answers.
pub async fn reflect(request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut text = format!("{} {} {:?}\n", parts.method, target, parts.version);
    if let Some(authority) = parts.uri.authority() {
        text.push_str(&format!("host: {authority}\n"));
    }
    for (name, value) in &parts.headers {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    let collected = body.collect().await.expect("the body arrives whole");
    let trailers = collected.trailers().cloned().unwrap_or_default();
    text.push_str(&format!("\n{}", String::from_utf8_lossy(&collected.to_bytes())));
    for (name, value) in &trailers {
        text.push_str(&format!("\ntrailer {name}: {}", String::from_utf8_lossy(value.as_bytes())));
    }
    Response::new(full(text))
}
