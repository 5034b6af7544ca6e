//! Connections that are idle.

use std::path::Path;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::keep_alive::exchange;
use crate::{tell, tls};

/// Opens them, one after the other, with a request each; says `ready`; holds them until its input ends.
///
/// # Errors
/// When one fails.
pub async fn run(port: u16, connections: usize, folder: Option<&Path>) -> anyhow::Result<()> {
    let mut plain: Vec<TcpStream> = Vec::new();
    let mut encrypted: Vec<TlsStream<TcpStream>> = Vec::new();
    let connector = folder.map(tls::config).transpose()?.map(TlsConnector::from);
    for _ in 0..connections {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
        // Else the request waits 40 ms for the proxy to acknowledge the end of the handshake.
        socket.set_nodelay(true)?;
        match &connector {
            Some(connector) => {
                let mut stream = connector.connect(tls::proxy()?, socket).await?;
                exchange(&mut stream).await?;
                encrypted.push(stream);
            }
            None => {
                exchange(&mut socket).await?;
                plain.push(socket);
            }
        }
    }
    tell("ready");
    // Nothing else is to be done meanwhile: it may block.
    std::io::read_to_string(std::io::stdin())?;
    Ok(())
}
