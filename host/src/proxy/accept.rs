//! Accepting: sockets to sessions. No peer is ever waited for here.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_local};

use crate::proxy::session;
use crate::proxy::worker::Worker;
use crate::snapshot::SocketKey;

/// How long to wait when the process or the system is out of something: short enough to be back soon, long
/// enough not to spin.
const BACK_OFF: Duration = Duration::from_millis(50);

/// A socket that connections are accepted from, until this is dropped.
#[derive(Debug)]
pub struct Accepting {
    open: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Accepting {
    /// Accepts connections of a listener.
    pub fn start(worker: Rc<Worker>, key: SocketKey, socket: StdListener) -> Self {
        let (open, closed) = oneshot::channel();
        Self { open, task: spawn_local(run(worker, Rc::new(key), socket, closed)) }
    }

    /// Accepts what waits already, and closes the socket.
    pub async fn close(self) {
        let Self { open, task } = self;
        drop(open);
        // A task that panicked has closed it, too.
        let _ = task.await;
    }
}

async fn run(worker: Rc<Worker>, key: Rc<SocketKey>, socket: StdListener, mut closed: oneshot::Receiver<()>) {
    let socket = match listener(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(address = %key.1, %error, "cannot accept on this worker");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = &mut closed => break,
        };
        match accepted {
            Ok((stream, peer)) => begin(&worker, &key, stream, peer),
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::warn!(address = %key.1, %error, "cannot accept for the moment");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
    if let Err(error) = empty(&worker, &key, socket) {
        tracing::warn!(address = %key.1, %error, "connections that wait to be accepted are lost");
    }
}

/// A listener whose connections do not wait with small writes until others come: they have that from it, at no call of their own.
fn listener(socket: StdListener) -> io::Result<TcpListener> {
    // A socket that cannot do it works all the same.
    let _ = SockRef::from(&socket).set_tcp_nodelay(true);
    TcpListener::from_std(socket)
}

/// Takes what waits to be accepted: closing the socket would reset it.
fn empty(worker: &Rc<Worker>, key: &Rc<SocketKey>, socket: TcpListener) -> io::Result<()> {
    let socket = socket.into_std()?;
    loop {
        match socket.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(true)?;
                begin(worker, key, TcpStream::from_std(stream)?, peer);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Begins a session, for which a drain waits from now on.
fn begin(worker: &Rc<Worker>, key: &Rc<SocketKey>, stream: TcpStream, peer: SocketAddr) {
    let participant = worker.drain.join();
    let (worker, key) = (Rc::clone(worker), Rc::clone(key));
    spawn_local(async move {
        let _participant = participant;
        // In a box, so that the connection does not keep the memory that a handshake takes.
        let identified = Box::pin(session::identify(worker, key, stream, peer)).await;
        if let Some(identified) = identified {
            identified.serve().await;
        }
    });
}

/// Whether an error concerns the connection that was to be accepted, and not the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_that_are_accepted_do_not_wait_with_small_writes() {
        let socket = StdListener::bind("127.0.0.1:0").expect("a port");
        socket.set_nonblocking(true).expect("an option");
        let listener = listener(socket).expect("a listener");
        let _client =
            TcpStream::connect(listener.local_addr().expect("an address")).await.expect("it listens");
        let (accepted, _) = listener.accept().await.expect("a connection");
        assert!(accepted.nodelay().expect("an option"));
    }
}
