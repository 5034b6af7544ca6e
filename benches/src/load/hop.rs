//! A bare TCP hop: what any proxy adds, before it does anything.

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

/// Relays from one port to another.
///
/// # Errors
/// When it cannot listen.
pub async fn run(port: u16, to: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (mut client, _) = listener.accept().await?;
        spawn_local(async move {
            let mut upstream = TcpStream::connect(("127.0.0.1", to)).await?;
            client.set_nodelay(true)?;
            upstream.set_nodelay(true)?;
            copy_bidirectional(&mut client, &mut upstream).await
        });
    }
}
