//! The client of a scenario: it sends what it is told, and notes what it gets.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::{Client, empty, fed};
use crate::parity::upstreams::{PIECE, short};
use crate::parity::{Scenario, Send, in_order, tls};
use crate::tls::client_config;
use crate::wait::soon;

/// Sends everything, one after the other, each on a connection of its own.
pub async fn run(scenario: &Scenario, address: SocketAddr) -> Vec<String> {
    let mut seen = Vec::new();
    for send in &scenario.requests {
        if scenario.tcp {
            seen.extend(tcp(send, address).await);
        } else {
            let client = client(scenario, send, address).await;
            seen.extend(soon("an answer, or the end of the stream", http(send, client)).await);
        }
    }
    seen
}

/// A connection for one request.
async fn client(scenario: &Scenario, send: &Send, address: SocketAddr) -> Client {
    match (scenario.tls, send.h2) {
        (true, h2) => {
            let config = client_config(Some(&tls::CLIENT), &[if h2 { "h2" } else { "http/1.1" }]);
            Client::tls(address, tls::NAMES.0, config).await.expect("TLS")
        }
        (false, true) => Client::h2(address).await,
        (false, false) => Client::h1(address).await,
    }
}

async fn http(send: &Send, mut client: Client) -> Vec<String> {
    let mut request = client.request(send.method, send.path);
    for (name, value) in &send.headers {
        request = request.header(*name, *value);
    }
    let request = if send.body.is_empty() && send.trailers.is_empty() {
        request.body(empty())
    } else {
        let (feed, body) = fed();
        let (pieces, trailers) = (send.body.clone(), map(&send.trailers));
        tokio::spawn(async move {
            for piece in pieces {
                let _ = feed.send(Frame::data(Bytes::from(piece)));
                tokio::time::sleep(PIECE).await;
            }
            if !trailers.is_empty() {
                let _ = feed.send(Frame::trailers(trailers));
            }
        });
        request.body(body)
    };
    let mut seen = Vec::new();
    let response = match client.send(request.expect("a request")).await {
        Ok(response) => response,
        Err(_) => return vec!["no answer".to_owned()],
    };
    seen.push(format!("status {}", response.status().as_u16()));
    seen.extend(in_order(response.headers()).map(|(name, value)| format!("{name}: {value}")));
    match response.into_body().collect().await {
        Ok(collected) => {
            let trailers = collected.trailers().cloned().unwrap_or_default();
            seen.push(format!("body {}", short(&collected.to_bytes())));
            for (name, value) in &trailers {
                seen.push(format!("trailer {name}: {}", String::from_utf8_lossy(value.as_bytes())));
            }
        }
        Err(_) => seen.push("body cut off".to_owned()),
    }
    seen
}

fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
}

/// Sends the pieces, each once something has come back for the one before or nothing for a while; then ends.
async fn tcp(send: &Send, address: SocketAddr) -> Vec<String> {
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    let mut got = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    for piece in &send.body {
        if socket.write_all(piece.as_bytes()).await.is_err() {
            break;
        }
        let read = tokio::time::timeout(PIECE * 3, socket.read(&mut buffer)).await;
        match read {
            Ok(Ok(read)) if read > 0 => got.extend_from_slice(&buffer[..read]),
            Ok(_) => return vec![format!("got {}, then the end", short(&got))],
            Err(_) => {}
        }
    }
    let _ = socket.shutdown().await;
    let ended = soon("the end of the connection", socket.read_to_end(&mut got)).await;
    let how = if ended.is_ok() { "the end" } else { "a reset" };
    vec![format!("got {}, then {how}", short(&got))]
}
