//! Accepting: sockets to sessions. No peer is ever waited for here.

use std::io;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::proxy::session;
use crate::proxy::worker::Worker;

/// How long to wait when the process or the system is out of something: short enough to be back soon, long
/// enough not to spin.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Accepts connections of a listener until it is aborted.
pub async fn run(worker: Rc<Worker>, name: Arc<str>, socket: StdListener) {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(listener = &*name, %error, "cannot accept on this worker");
            return;
        }
    };
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                let session = session::serve(Rc::clone(&worker), Arc::clone(&name), stream, peer);
                tokio::task::spawn_local(session);
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::warn!(listener = &*name, %error, "cannot accept for the moment");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// Whether an error concerns the connection that was to be accepted, and not the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
