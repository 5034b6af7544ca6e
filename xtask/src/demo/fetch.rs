//! One GET in the clear.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks `address` for a path, in the name of `host`.
///
/// # Errors
/// When no answer comes.
pub async fn get(address: &str, host: &str, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let answer = tokio::time::timeout(PATIENCE, exchange(address, host, path)).await;
    answer.with_context(|| format!("{address} does not answer within {PATIENCE:?}"))?
}

async fn exchange(address: &str, host: &str, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let socket = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    // It ends with the client, and what goes wrong is told by the answer.
    tokio::spawn(connection);
    let request = Request::get(path).header("host", host).header("connection", "close");
    let response = client.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
