//! A protocol that HTTP/1.1 is upgraded to: after a word of welcome, everything is sent back.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

use crate::http::read_head;
use crate::upstream::Upstream;
use crate::wait::soon;

/// An upstream that upgrades whoever asks for it. Everybody else gets 200, as often as they like, once so many ask at
/// the same time.
pub async fn websocket(together: usize) -> Upstream {
    let barrier = Arc::new(Barrier::new(together));
    Upstream::new(move |socket| {
        let barrier = Arc::clone(&barrier);
        async move { serve(socket, &barrier).await }
    })
    .await
}

async fn serve(mut socket: TcpStream, barrier: &Barrier) {
    loop {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let Ok(byte) = socket.read_u8().await else { return };
            request.push(byte.to_ascii_lowercase());
        }
        let request = String::from_utf8_lossy(&request);
        if request.contains("connection: upgrade\r\n") && request.contains("upgrade: websocket\r\n") {
            break;
        }
        barrier.wait().await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    }
    // What comes behind the head is the first word of the new protocol.
    let answer =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nwelcome";
    let _ = socket.write_all(answer.as_bytes()).await;
    let (mut read, mut write) = socket.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

/// Upgrades a connection at `/chat`, and says `ping`.
///
/// # Panics
/// When the answer is another one.
pub async fn converse(socket: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let request = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n";
    socket.write_all(request.as_bytes()).await.expect("sent");
    let head = soon("the head", read_head(socket)).await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: websocket"), "{head}");
    let mut welcome = [0; 7];
    soon("the first word", socket.read_exact(&mut welcome)).await.expect("it comes");
    assert_eq!(&welcome, b"welcome");
    socket.write_all(b"ping").await.expect("sent");
    let mut pong = [0; 4];
    soon("the echo", socket.read_exact(&mut pong)).await.expect("it comes");
    assert_eq!(&pong, b"ping");
}
