//! A connection: plain, through TLS, or within the process.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use rustix::net::RecvFlags;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// A connection: plain, through TLS, or within the process.
#[derive(Debug)]
pub enum Stream {
    /// In the clear.
    Tcp(TcpStream),
    /// Through TLS, of either side.
    Tls(Box<TlsStream<TcpStream>>),
    /// To another part of this process.
    Local(LocalStream),
}

/// One end of a connection within the process.
#[derive(Debug)]
pub struct LocalStream {
    io: DuplexStream,
    /// Whether one end was reset.
    reset: Arc<AtomicBool>,
}

impl Stream {
    /// Two ends that are connected, with room for so many bytes on the way in each direction.
    pub fn pair(room: usize) -> (Self, Self) {
        let (one, other) = tokio::io::duplex(room);
        let reset = Arc::new(AtomicBool::new(false));
        let end = |io| Self::Local(LocalStream { io, reset: Arc::clone(&reset) });
        (end(one), end(other))
    }

    /// The socket, when nothing is encrypted.
    pub fn as_tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(socket) => Some(socket),
            Self::Tls(_) | Self::Local(_) => None,
        }
    }

    /// The certificates that the peer has shown in the handshake, leaf first.
    pub fn peer_chain(&self) -> &[CertificateDer<'static>] {
        match self {
            Self::Tls(stream) => stream.get_ref().1.peer_certificates().unwrap_or_default(),
            Self::Tcp(_) | Self::Local(_) => &[],
        }
    }

    /// The socket under it.
    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(socket) => Some(socket),
            Self::Tls(stream) => Some(stream.get_ref().0),
            Self::Local(_) => None,
        }
    }

    /// Our address.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.socket()?.local_addr().ok()
    }

    /// Has the connection reset when it is dropped, so that the peer sees that it did not end in order.
    pub fn reset(&self) {
        if let Self::Local(local) = self {
            local.reset.store(true, Ordering::Relaxed);
        }
        if let Some(socket) = self.socket() {
            // A socket that is gone needs no reset.
            let _ = socket.set_zero_linger();
        }
    }

    /// Whether the other end of a connection within the process was reset.
    pub fn was_reset(&self) -> bool {
        matches!(self, Self::Local(local) if local.reset.load(Ordering::Relaxed))
    }

    /// Whether nothing is to be read, the end included. What TLS has decrypted and nobody has read yet counts; what it
    /// says among itself (tickets, keys) does not. A byte that comes to light this way is lost: a connection that is
    /// not silent must not be used any more.
    pub fn is_silent(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        match self {
            Self::Tcp(socket) => socket.poll_read_ready(&mut cx).is_pending(),
            Self::Tls(stream) => {
                let mut byte = [0];
                Pin::new(stream).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
            }
            Self::Local(_) => true,
        }
    }

    /// Whether the peer has sent something that nobody has read. The kernel knows before the runtime does.
    pub fn has_arrived(&self) -> bool {
        let mut byte = [0];
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        // What was sent within the process is read as soon as it is looked for.
        self.socket()
            .is_some_and(|socket| rustix::net::recv(socket, &mut byte, peek).is_ok_and(|(_, len)| len > 0))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Local(local) => Pin::new(&mut local.io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Local(local) => Pin::new(&mut local.io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Local(local) => Pin::new(&mut local.io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(socket) => socket.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Local(local) => local.io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Local(local) => Pin::new(&mut local.io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Local(local) => Pin::new(&mut local.io).poll_shutdown(cx),
        }
    }
}
