//! Pairing: every request has a nonce, and what comes as its answer has to have the same one, however oddly the upstream
//! behaves and however the clients ask: one after the other, pipelined, side by side over HTTP/2, or gone before the answer.

pub mod odd;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use memchr::memmem::find;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::http::{Client, empty, full};
use crate::soak::pairing::odd::{Crossed, MODES, body_of};
use crate::soak::process::Process;

/// How long a process may take to listen.
const START: Duration = Duration::from_secs(30);

/// When an answer that has not come is a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What is in a configuration whose listener is `web` and whose endpoints are these.
pub fn config(endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
    format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ \
             {{ match: {{ path_prefix: /too-late }}, cluster: up, timeout: 30ms }}, {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [ {} ], outlier_detection: {{ consecutive_failures: 0 }} }} ]\n",
        endpoints.join(", ")
    )
}

/// Runs it through a Weir of its own, with two odd upstreams.
///
/// # Panics
/// When something does not start.
pub fn through(weir: &Path, requests: u64, connections: u64) -> Tally {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let crossed = Crossed::default();
        let upstreams = [odd::start(&crossed).await, odd::start(&crossed).await];
        let folder = TempDir::new().expect("a temporary folder");
        let file = folder.path().join("weir.yaml");
        std::fs::write(&file, config(&upstreams.each_ref().map(|upstream| upstream.address)))
            .expect("written");
        let mut command = Command::new(weir);
        command.args(["run", "--config"]).arg(&file).env("XDG_RUNTIME_DIR", folder.path());
        let process = Process::start(&mut command);
        let line =
            process.wait_for("listening listener=", START).unwrap_or_else(|| panic!("{}", process.log()));
        let address = line.rsplit_once("address=").and_then(|(_, address)| address.trim().parse().ok());
        run(
            address.unwrap_or_else(|| panic!("no address in {line}")),
            requests,
            connections,
            PATIENCE,
            &crossed,
        )
        .await
    })
}

/// What came of the requests.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Answers of the upstream, which were their requests'.
    pub paired: u64,
    /// Answers of the proxy itself, by status.
    pub refused: BTreeMap<u16, u64>,
    /// Requests whose connection ended before the end of an answer.
    pub unanswered: u64,
    /// Requests whose client went away.
    pub abandoned: u64,
    /// What must never be: the answer of another request, or none for too long.
    pub wrong: Vec<String>,
}

impl Tally {
    /// All requests.
    pub fn count(&self) -> u64 {
        self.paired + self.unanswered + self.abandoned + self.refused.values().sum::<u64>()
    }
}

/// What the clients share.
struct Shared {
    address: SocketAddr,
    patience: Duration,
    left: AtomicU64,
    nonce: AtomicU64,
    tally: Mutex<Tally>,
}

/// What is asked.
#[derive(Debug, Clone)]
struct Asked {
    mode: &'static str,
    nonce: String,
    method: &'static str,
}

/// What an answer is.
struct Answer {
    status: u16,
    nonce: Option<String>,
    body: Vec<u8>,
    closes: bool,
}

/// Sends so many requests to an address, over so many connections at a time, and judges what comes back. An answer may
/// take as long as `patience`. `crossed`: what the upstreams have seen.
pub async fn run(
    address: SocketAddr,
    requests: u64,
    connections: u64,
    patience: Duration,
    crossed: &Crossed,
) -> Tally {
    let shared = Arc::new(Shared {
        address,
        patience,
        left: AtomicU64::new(requests),
        nonce: AtomicU64::new(1),
        tally: Mutex::default(),
    });
    let mut clients = JoinSet::new();
    for number in 0..connections {
        let shared = Arc::clone(&shared);
        clients.spawn(async move {
            let mut dice = fastrand::Rng::with_seed(number);
            while shared.left.load(Ordering::Relaxed) > 0 {
                match number % 4 {
                    0 => shared.one_connection(&mut dice, 1, false).await,
                    1 => shared.one_connection(&mut dice, 8, false).await,
                    2 => shared.one_connection(&mut dice, 3, true).await,
                    _ => shared.side_by_side(&mut dice).await,
                }
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client");
    }
    let mut tally = shared.tally.lock().expect("nobody panics here").clone();
    tally.wrong.extend(crossed.lock().expect("nobody panics here").drain(..));
    tally
}

impl Shared {
    fn ask(&self, dice: &mut fastrand::Rng) -> Asked {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(1)))
            .ok();
        let mode = MODES[dice.usize(..MODES.len())];
        let nonce = format!("{:016x}", self.nonce.fetch_add(1, Ordering::Relaxed));
        let method = match mode {
            "head" => "HEAD",
            "early" | "early-and-closed" => "POST",
            _ if dice.u8(..4) == 0 => "PUT",
            _ => "GET",
        };
        Asked { mode, nonce, method }
    }

    fn tell(&self, judged: impl FnOnce(&mut Tally)) {
        judged(&mut self.tally.lock().expect("nobody panics here"));
    }

    /// Looks whether an answer is that of its request.
    fn judge(&self, asked: &Asked, answer: &Answer) {
        let Asked { nonce, method, .. } = asked;
        self.tell(|tally| match &answer.nonce {
            Some(own) => {
                let empty = *method == "HEAD" || answer.status == 204;
                let expected = if empty { String::new() } else { body_of(nonce) };
                if own == nonce && answer.body == expected.as_bytes() {
                    tally.paired += 1;
                } else {
                    let start = answer.body.get(..40.min(answer.body.len())).unwrap_or_default();
                    let body = String::from_utf8_lossy(start);
                    tally.wrong.push(format!("{asked:?} was answered by {own}: {body:?} ..."));
                }
            }
            None if find(&answer.body, b"nonce").is_some() => {
                tally
                    .wrong
                    .push(format!("{asked:?} was answered by {} with a body of another", answer.status));
            }
            None => *tally.refused.entry(answer.status).or_default() += 1,
        });
    }

    /// Asks on one connection until it ends, so many requests at a time; `leaves`: the client goes away at some time.
    async fn one_connection(&self, dice: &mut fastrand::Rng, at_a_time: usize, leaves: bool) {
        let Ok(socket) = TcpStream::connect(self.address).await else {
            return self.tell(|tally| tally.wrong.push("nobody listens".to_owned()));
        };
        let _ = socket.set_nodelay(true);
        let mut reader = Reader { socket, received: Vec::new() };
        for _ in 0..dice.usize(1..50) {
            let asked: Vec<_> = (0..dice.usize(1..=at_a_time)).map(|_| self.ask(dice)).collect();
            let text: String = asked.iter().map(Asked::text).collect();
            if reader.socket.write_all(text.as_bytes()).await.is_err() {
                return self.tell(|tally| tally.unanswered += asked.len() as u64);
            }
            if leaves && dice.u8(..3) == 0 {
                // Some do not even say so.
                if dice.bool() {
                    let _ = reader.socket.set_zero_linger();
                }
                return self.tell(|tally| tally.abandoned += asked.len() as u64);
            }
            let count = asked.len() as u64;
            for (number, asked) in (0u64..).zip(&asked) {
                match tokio::time::timeout(self.patience, reader.answer(asked.method)).await {
                    Ok(Ok(answer)) => {
                        self.judge(asked, &answer);
                        if answer.closes {
                            return self.tell(|tally| tally.unanswered += count - number - 1);
                        }
                    }
                    Ok(Err(_)) => return self.tell(|tally| tally.unanswered += count - number),
                    Err(_) => {
                        return self
                            .tell(|tally| tally.wrong.push(format!("{asked:?} was not answered at all")));
                    }
                }
            }
        }
    }

    /// Asks side by side over HTTP/2.
    async fn side_by_side(&self, dice: &mut fastrand::Rng) {
        let Client::H2(client) = Client::h2(self.address).await else { return };
        for _ in 0..10 {
            let mut streams = JoinSet::new();
            for _ in 0..dice.usize(1..16) {
                let (asked, mut client, patience) = (self.ask(dice), client.clone(), self.patience);
                streams.spawn(async move {
                    let work = async {
                        client.ready().await?;
                        let (parts, body) = client.send_request(asked.request()).await?.into_parts();
                        let body = body.collect().await?.to_bytes().to_vec();
                        let nonce = parts.headers.get("x-nonce");
                        let nonce = nonce.map(|nonce| String::from_utf8_lossy(nonce.as_bytes()).into_owned());
                        Ok::<_, hyper::Error>(Answer {
                            status: parts.status.as_u16(),
                            nonce,
                            body,
                            closes: false,
                        })
                    };
                    let answer = tokio::time::timeout(patience, work).await;
                    (asked, answer)
                });
            }
            while let Some(ended) = streams.join_next().await {
                match ended.expect("a stream") {
                    (asked, Ok(Ok(answer))) => self.judge(&asked, &answer),
                    (_, Ok(Err(_))) => self.tell(|tally| tally.unanswered += 1),
                    (asked, Err(_)) => {
                        self.tell(|tally| tally.wrong.push(format!("{asked:?} was not answered at all")));
                    }
                }
            }
        }
    }
}

impl Asked {
    fn has_body(&self) -> bool {
        matches!(self.method, "POST" | "PUT")
    }

    fn text(&self) -> String {
        let Self { mode, nonce, method } = self;
        let head = format!("{method} /{mode}/{nonce} HTTP/1.1\r\nhost: pairing\r\n");
        if !self.has_body() {
            return head + "\r\n";
        }
        let body = body_of(nonce);
        format!("{head}content-length: {}\r\n\r\n{body}", body.len())
    }

    fn request(&self) -> Request<crate::http::Body> {
        let Self { mode, nonce, method } = self;
        let body = if self.has_body() { full(body_of(nonce)) } else { empty() };
        let request = Request::builder().method(*method).uri(format!("http://pairing/{mode}/{nonce}"));
        request.body(body).expect("a request")
    }
}

/// Reads answers of HTTP/1.
struct Reader {
    socket: TcpStream,
    received: Vec<u8>,
}

impl Reader {
    async fn more(&mut self) -> std::io::Result<()> {
        match self.socket.read_buf(&mut self.received).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn answer(&mut self, method: &str) -> std::io::Result<Answer> {
        let head = loop {
            if let Some(at) = find(&self.received, b"\r\n\r\n") {
                let head: Vec<u8> = self.received.drain(..at + 4).collect();
                break String::from_utf8_lossy(&head).to_ascii_lowercase();
            }
            self.more().await?;
        };
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        let nonce = field("x-nonce").map(str::to_owned);
        let closes = field("connection") == Some("close");
        let mut body = Vec::new();
        if method == "HEAD" || status == 204 {
        } else if let Some(length) = field("content-length").and_then(|length| length.parse().ok()) {
            while self.received.len() < length {
                self.more().await?;
            }
            body.extend(self.received.drain(..length));
        } else if field("transfer-encoding").is_some() {
            self.chunks(&mut body).await?;
        } else {
            // It ends with the connection.
            while self.more().await.is_ok() {}
            body = std::mem::take(&mut self.received);
            return Ok(Answer { status, nonce, body, closes: true });
        }
        Ok(Answer { status, nonce, body, closes })
    }

    async fn chunks(&mut self, body: &mut Vec<u8>) -> std::io::Result<()> {
        loop {
            let at = loop {
                if let Some(at) = find(&self.received, b"\r\n") {
                    break at;
                }
                self.more().await?;
            };
            let size = String::from_utf8_lossy(&self.received[..at]).into_owned();
            let size = usize::from_str_radix(&size, 16).map_err(std::io::Error::other)?;
            let whole = at + 2 + size + 2;
            while self.received.len() < whole {
                self.more().await?;
            }
            body.extend_from_slice(&self.received[at + 2..at + 2 + size]);
            self.received.drain(..whole);
            if size == 0 {
                return Ok(());
            }
        }
    }
}
