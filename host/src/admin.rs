//! The admin API: readiness, metrics, what is in force, reload and drain. It runs on the control plane and speaks
//! HTTP/1 through Weir's own codec.

mod view;

use std::future::poll_fn;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use crate::http::h1::connection::Persistence;
use crate::http::h1::{Connection, Length, Limits};
use crate::http::message::{Response, Scheme};
use crate::net::stream::Stream;
use crate::reload::status::{Phase, Status, lock};
use crate::telemetry::metrics::Registry;

/// What the admin API asks of the process.
#[derive(Debug)]
pub enum Wish {
    /// Reload everything; the answer is what is wrong with the configuration, if anything.
    Reload(oneshot::Sender<Result<(), String>>),
    /// Begin to drain.
    Drain,
}

/// What the admin API shows, and whom it asks.
pub struct Admin {
    /// What is in force.
    pub status: Arc<Status>,
    /// The metrics.
    pub registry: Arc<Registry>,
    /// The process.
    pub wishes: mpsc::UnboundedSender<Wish>,
}

/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer: its status, the type of its body, and the body.
struct Answer(StatusCode, &'static str, String);

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

/// What there is, for `GET /`.
const INDEX: &str = "GET /ready\nGET /metrics\nGET /plugins\nGET /listeners\nGET /clusters\nGET /certificates\n\
                     GET /config\nPOST /reload\nPOST /drain\n";

/// Serves the admin API until the process ends.
pub async fn serve(admin: Rc<Admin>, socket: StdListener) {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "the admin API cannot be served"),
    };
    loop {
        match socket.accept().await {
            Ok((stream, _)) => {
                let admin = Rc::clone(&admin);
                tokio::task::spawn_local(async move {
                    admin.connection(stream).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin API cannot accept for the moment");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

impl Admin {
    /// Answers the requests of one connection. It ends when the client ends it, or says nothing for too long.
    async fn connection(&self, stream: TcpStream) {
        let connection = Connection::new(Stream::Tcp(stream), Limits::default());
        loop {
            let request = poll_fn(|cx| connection.poll_request(cx, Scheme::Http));
            let head = match tokio::time::timeout(PATIENCE, request).await {
                Ok(Ok(Some(head))) => head,
                // What is no request, or is too slow, gets no answer here.
                Ok(Ok(None) | Err(_)) | Err(_) => return,
            };
            let request = &head.request;
            // A page in a browser is not who operates this.
            let Answer(status, kind, body) = if request.headers.contains_key(header::ORIGIN) {
                Answer(StatusCode::FORBIDDEN, TEXT, "not for web pages\n".to_owned())
            } else {
                self.answer(&request.method, request.url_path()).await
            };
            // A process that drains may not be the one that a client wants to hear from next.
            let stays = *lock(&self.status.phase) != Phase::Draining;
            let keep = stays && head.keep_alive && connection.discard_buffered();
            let persistence = if keep { Persistence::Silent } else { Persistence::Close };
            let sending = send(&connection, &request.method, status, kind, body, persistence);
            let sent = tokio::time::timeout(PATIENCE, sending).await;
            if !matches!(sent, Ok(Ok(()))) || !keep {
                return;
            }
        }
    }

    async fn answer(&self, method: &Method, path: &str) -> Answer {
        let get = method == Method::GET || method == Method::HEAD;
        match path {
            "/" if get => Answer(StatusCode::OK, TEXT, INDEX.to_owned()),
            "/ready" if get => self.ready(),
            "/metrics" if get => Answer(StatusCode::OK, METRICS, self.registry.render()),
            "/plugins" if get => json(&view::plugins(&self.status, &self.registry)),
            "/listeners" if get => json(&view::listeners(&self.status)),
            "/clusters" if get => json(&view::clusters(&self.status)),
            "/certificates" if get => json(&view::certificates(&self.status)),
            "/config" if get => json(&view::config(&self.status)),
            "/reload" if method == Method::POST => self.reload().await,
            "/drain" if method == Method::POST => {
                // A process that does not listen any more drains already.
                let _ = self.wishes.send(Wish::Drain);
                Answer(StatusCode::ACCEPTED, TEXT, "draining\n".to_owned())
            }
            "/" | "/ready" | "/metrics" | "/plugins" | "/listeners" | "/clusters" | "/certificates"
            | "/config" => Answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, format!("use GET {path}\n")),
            "/reload" | "/drain" => {
                Answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, format!("use POST {path}\n"))
            }
            _ => Answer(StatusCode::NOT_FOUND, TEXT, format!("there is no {path}; there are:\n{INDEX}")),
        }
    }

    fn ready(&self) -> Answer {
        match *lock(&self.status.phase) {
            Phase::Serving => Answer(StatusCode::OK, TEXT, self.ready_but_for()),
            Phase::Starting => Answer(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                "not ready: starting, not every listener serves yet\n".to_owned(),
            ),
            Phase::Draining => {
                Answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready: draining\n".to_owned())
            }
        }
    }

    /// That it is ready, and what is wrong nevertheless: whoever serves with what was good is to go on.
    fn ready_but_for(&self) -> String {
        let concerns = self.status.snapshot().map(|snapshot| snapshot.concerns()).unwrap_or_default();
        if concerns.is_empty() {
            return "ready\n".to_owned();
        }
        let told = concerns.iter().map(|concern| format!("{}: {}\n", concern.owner, concern.reason));
        format!("ready, but degraded:\n{}", told.collect::<String>())
    }

    async fn reload(&self) -> Answer {
        let (tell, told) = oneshot::channel();
        let asked = self.wishes.send(Wish::Reload(tell)).is_ok();
        match if asked { told.await.ok() } else { None } {
            Some(Ok(())) => Answer(StatusCode::OK, TEXT, "reloaded\n".to_owned()),
            Some(Err(problems)) => Answer(StatusCode::BAD_REQUEST, TEXT, format!("{problems}\n")),
            None => Answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the process is ending\n".to_owned()),
        }
    }
}

fn json(value: &serde_json::Value) -> Answer {
    Answer(StatusCode::OK, JSON, format!("{value:#}\n"))
}

async fn send(
    connection: &Connection,
    to: &Method,
    status: StatusCode,
    kind: &'static str,
    body: String,
    persistence: Persistence,
) -> std::io::Result<()> {
    let mut response = Response::new(status);
    response.headers.insert(header::SERVER, HeaderValue::from_static("weir"));
    response.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // What is in force changes.
    response.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let head = to == Method::HEAD;
    let length = if head { Length::None } else { Length::Known(body.len() as u64) };
    connection.send_response(&response, length, to, true, persistence);
    if !head {
        connection.send_data(Bytes::from(body)).map_err(std::io::Error::other)?;
    }
    connection.send_end(None).map_err(std::io::Error::other)?;
    connection.flush().await
}
