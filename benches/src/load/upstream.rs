//! Upstreams of connections that pass through. They read the ClientHello and do not answer it: what passes is bytes.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::spawn_local;

/// What an upstream says at a time.
static BYTES: [u8; 256 << 10] = [b'x'; 256 << 10];

/// Answers each ClientHello with 64 bytes, and closes.
///
/// # Errors
/// When it cannot listen.
pub async fn answer(port: u16) -> anyhow::Result<()> {
    serve(port, async |mut socket: TcpStream| {
        let mut hello = [0; 4096];
        if socket.read(&mut hello).await.is_ok_and(|len| len > 0) {
            // A client that is gone is not waited for.
            let _ = socket.write_all(&BYTES[..64]).await;
        }
    })
    .await
}

/// Answers each ClientHello with bytes without end.
///
/// # Errors
/// When it cannot listen.
pub async fn pour(port: u16) -> anyhow::Result<()> {
    serve(port, async |mut socket: TcpStream| {
        let mut hello = [0; 4096];
        if socket.read(&mut hello).await.is_ok_and(|len| len > 0) {
            while socket.write_all(&BYTES).await.is_ok() {}
        }
    })
    .await
}

async fn serve(port: u16, session: impl AsyncFn(TcpStream) + Copy + 'static) -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from(([0, 0, 0, 0], port)))?;
    let listener = socket.listen(16384)?;
    loop {
        let (socket, _) = listener.accept().await?;
        spawn_local(async move { session(socket).await });
    }
}
