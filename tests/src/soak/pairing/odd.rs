//! An upstream that answers in odd ways, as each request asks: `/MODE/NONCE`. What belongs to a request has its nonce.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use memchr::memmem::find;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::upstream::Upstream;

/// The ways to answer. What is often is here more than once.
pub const MODES: [&str; 24] = [
    "plain",
    "plain",
    "plain",
    "plain",
    "plain",
    "plain",
    "chunked",
    "chunked",
    "slow",
    "interim",
    "none",
    "head",
    "close",
    "silent",
    "to-the-end",
    "surplus",
    "surplus",
    "early",
    "early-and-closed",
    "reset",
    "cut",
    "cut-chunks",
    "too-late",
    "plain",
];

/// An answer that nobody has asked for. It comes together with the one before: HTTP/1 does not tell one that comes after the
/// next request has been sent from the answer to that.
const SURPLUS: &[u8] = b"HTTP/1.1 200 OK\r\nx-nonce: surplus\r\ncontent-length: 7\r\n\r\nsurplus";

/// Requests whose body was another one's.
pub type Crossed = Arc<Mutex<Vec<String>>>;

/// Starts one.
pub async fn start(crossed: &Crossed) -> Upstream {
    let crossed = Arc::clone(crossed);
    Upstream::new(move |socket| {
        let crossed = Arc::clone(&crossed);
        async move {
            // Whoever goes away does so.
            let _ = serve(socket, &crossed).await;
        }
    })
    .await
}

/// What is in a body: the nonce, as often as its last digit says.
pub fn body_of(nonce: &str) -> String {
    let times = nonce.bytes().last().map_or(1, |digit| 1 + usize::from(digit % 16) * 60);
    format!("nonce {nonce}\n").repeat(times)
}

struct Peer {
    socket: TcpStream,
    received: Vec<u8>,
}

impl Peer {
    async fn more(&mut self) -> std::io::Result<()> {
        match self.socket.read_buf(&mut self.received).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// What comes up to and with some bytes.
    async fn up_to(&mut self, end: &[u8]) -> std::io::Result<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.received, end) {
                return Ok(self.received.drain(..at + end.len()).collect());
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, len: usize) -> std::io::Result<Vec<u8>> {
        while self.received.len() < len {
            self.more().await?;
        }
        Ok(self.received.drain(..len).collect())
    }

    async fn body(&mut self, head: &str) -> std::io::Result<Vec<u8>> {
        if head.contains("transfer-encoding: chunked") {
            let mut body = Vec::new();
            loop {
                let size = self.up_to(b"\r\n").await?;
                let size = String::from_utf8_lossy(&size);
                let size = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
                let chunk = self.exactly(size + 2).await?;
                if size == 0 {
                    return Ok(body);
                }
                body.extend_from_slice(&chunk[..size]);
            }
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        self.exactly(length.unwrap_or(0)).await
    }

    async fn say(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.socket.write_all(bytes.as_ref()).await
    }
}

async fn serve(socket: TcpStream, crossed: &Crossed) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut peer = Peer { socket, received: Vec::new() };
    loop {
        let head = peer.up_to(b"\r\n\r\n").await?;
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let mut path = head.split(' ').nth(1).unwrap_or_default().split('/').skip(1);
        let (mode, nonce) = (path.next().unwrap_or_default(), path.next().unwrap_or_default());
        let early = mode.starts_with("early");
        if early {
            answer(&mut peer, "plain", nonce).await?;
        }
        if mode == "early-and-closed" {
            return Ok(());
        }
        let body = peer.body(&head).await?;
        if !body.is_empty() && body != body_of(nonce).as_bytes() {
            crossed
                .lock()
                .expect("nobody panics here")
                .push(format!("{nonce} came with the body of another"));
        }
        if !early && !answer(&mut peer, mode, nonce).await? {
            return Ok(());
        }
    }
}

/// Answers. False when the connection is over with that.
async fn answer(peer: &mut Peer, mode: &str, nonce: &str) -> std::io::Result<bool> {
    let body = body_of(nonce);
    let head = |more: &str| format!("HTTP/1.1 200 OK\r\nx-nonce: {nonce}\r\n{more}\r\n");
    let length = format!("content-length: {}\r\n", body.len());
    let (first, second) = body.split_at(body.len() / 2);
    let chunk = |part: &str| format!("{:x}\r\n{part}\r\n", part.len());
    let pause = tokio::time::sleep(Duration::from_millis(if mode == "too-late" { 60 } else { 2 }));
    match mode {
        "chunked" => {
            let chunks = format!("{}{}0\r\n\r\n", chunk(first), chunk(second));
            peer.say(head("transfer-encoding: chunked\r\n") + &chunks).await?;
        }
        "slow" => {
            peer.say(head(&length)).await?;
            pause.await;
            peer.say(first).await?;
            peer.say(second).await?;
        }
        "interim" => {
            let interim = "HTTP/1.1 103 Early Hints\r\nx-nonce: interim\r\n\r\n";
            peer.say(interim.to_owned() + &head(&length) + &body).await?;
        }
        "none" => peer.say(format!("HTTP/1.1 204 No Content\r\nx-nonce: {nonce}\r\n\r\n")).await?,
        // To HEAD there is no body, and this is one all the same.
        "head" => peer.say(head(&length) + &body).await?,
        "close" => {
            peer.say(head(&format!("{length}connection: close\r\n")) + &body).await?;
            return Ok(false);
        }
        "silent" => {
            peer.say(head(&length) + &body).await?;
            return Ok(false);
        }
        "to-the-end" => {
            peer.say(head("connection: close\r\n") + &body).await?;
            return Ok(false);
        }
        "surplus" => {
            peer.say([(head(&length) + &body).as_bytes(), SURPLUS].concat()).await?;
        }
        "reset" => {
            peer.socket.set_zero_linger()?;
            return Ok(false);
        }
        "cut" => {
            peer.say(head(&length) + first).await?;
            return Ok(false);
        }
        "cut-chunks" => {
            peer.say(head("transfer-encoding: chunked\r\n") + &chunk(first)).await?;
            return Ok(false);
        }
        "too-late" => {
            pause.await;
            peer.say(head(&length) + &body).await?;
        }
        _ => peer.say(head(&length) + &body).await?,
    }
    Ok(true)
}
