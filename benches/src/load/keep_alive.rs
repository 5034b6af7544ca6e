//! Requests over mutual TLS, on connections that are kept. (wrk and h2load have no client certificates.)

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::{tell_sum, tls};

/// The request of all of this load.
pub const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: proxy.bench.internal\r\nUser-Agent: bench\r\n\r\n";

/// Asks until the time is over, and prints `count=N`.
///
/// # Errors
/// When a request fails.
pub async fn run(port: u16, duration: Duration, connections: usize, folder: &Path) -> anyhow::Result<()> {
    let connector = TlsConnector::from(tls::config(folder)?);
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let connector = connector.clone();
        clients.spawn_local(async move {
            let socket = TcpStream::connect(("127.0.0.1", port)).await?;
            socket.set_nodelay(true)?;
            anyhow::Ok(connector.connect(tls::proxy()?, socket).await?)
        });
    }
    let mut streams = Vec::new();
    while let Some(stream) = clients.join_next().await {
        streams.push(stream??);
    }
    let deadline = Instant::now() + duration;
    let mut clients = JoinSet::new();
    for mut stream in streams {
        clients.spawn_local(async move {
            let mut count = 0_u64;
            while Instant::now() < deadline {
                exchange(&mut stream).await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    tell_sum("count", clients).await
}

/// One request, and its answer to the end.
///
/// # Errors
/// When the answer is not 200, or does not come.
pub async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> anyhow::Result<()> {
    stream.write_all(REQUEST).await?;
    stream.flush().await?;
    let (mut buffer, mut len) = ([0; 4096], 0);
    loop {
        let read = stream.read(buffer.get_mut(len..).context("a long head")?).await?;
        if read == 0 {
            bail!("the connection ended in an answer");
        }
        len += read;
        if is_whole(buffer.get(..len).unwrap_or_default())? {
            return Ok(());
        }
    }
}

/// Whether this is a whole answer. Only 200 is good, and it has to say how long its body is.
///
/// # Errors
/// When it is not such an answer.
pub fn is_whole(answer: &[u8]) -> anyhow::Result<bool> {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(false) };
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let length = length.filter(|_| head.starts_with("http/1.1 200"));
    let length = length.with_context(|| format!("not 200 with a length: {head}"))?;
    Ok(answer.len() >= end + 4 + length)
}
