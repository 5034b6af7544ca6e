//! Upstreams.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Where servers run: not in the test's own runtime, so that a test may block while it waits for the gateway.
///
/// # Panics
/// When no thread can be started.
pub fn background() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    })
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// A server that hands every connection to `serve`.
    ///
    /// # Panics
    /// When no port is to be had.
    pub async fn new<F>(serve: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let task = background().spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            tell.send(listener.local_addr().expect("an address")).expect("the test waits");
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket));
            }
        });
        Self { address: told.await.expect("the server starts"), task }
    }

    /// A TLS server that sends `greeting` to everybody, and ends.
    pub async fn tls_greeting(config: ServerConfig, greeting: &'static str) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::new(move |socket| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut stream) = acceptor.accept(socket).await else { return };
                let _ = stream.write_all(greeting.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        })
        .await
    }

    /// A server that tells every byte that it gets, connection by connection.
    pub async fn recording() -> (Self, mpsc::UnboundedReceiver<Vec<u8>>) {
        let (tell, told) = mpsc::unbounded_channel();
        let upstream = Self::new(move |mut socket| {
            let tell = tell.clone();
            async move {
                let mut bytes = Vec::new();
                // What came before a reset was received all the same.
                let _ = socket.read_to_end(&mut bytes).await;
                let _ = tell.send(bytes);
            }
        })
        .await;
        (upstream, told)
    }

    /// A server that sends back what it gets.
    pub async fn echo() -> Self {
        Self::new(|mut socket| async move {
            let (mut read, mut write) = socket.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        })
        .await
    }

    /// A server that stands between: it relays to `address`, and can cut what it relays.
    pub async fn cutting(address: SocketAddr) -> (Self, Arc<Cutter>) {
        let cutter = Arc::new(Cutter::default());
        let cuts = Arc::clone(&cutter);
        let upstream = Self::new(move |socket| {
            let cuts = Arc::clone(&cuts);
            async move {
                let number = cuts.accepted.fetch_add(1, Ordering::SeqCst);
                let _ = cuts.relay(socket, number, address).await;
            }
        })
        .await;
        (upstream, cutter)
    }

    /// An address where nobody listens, and nobody will as long as the test runs: a socket has the port, and does not
    /// listen.
    ///
    /// # Panics
    /// When no port is to be had.
    pub async fn nowhere() -> SocketAddr {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let socket: &'static TcpSocket = Box::leak(Box::new(socket));
        socket.local_addr().expect("an address")
    }
}

/// Cuts connections that are relayed.
#[derive(Debug, Default)]
pub struct Cutter {
    accepted: AtomicUsize,
    /// The connections before this number are cut.
    before: AtomicUsize,
}

impl Cutter {
    /// Cuts every connection that there is now, when more comes on it from the client.
    pub fn cut(&self) {
        self.before.store(self.accepted.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    async fn relay(&self, mut socket: TcpStream, number: usize, address: SocketAddr) -> std::io::Result<()> {
        let mut to = TcpStream::connect(address).await?;
        let (mut read, mut write) = socket.split();
        let (mut back, mut on) = to.split();
        let forwarding = async {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let len = read.read(&mut buffer).await?;
                if len == 0 || number < self.before.load(Ordering::SeqCst) {
                    return Ok(());
                }
                on.write_all(&buffer[..len]).await?;
            }
        };
        tokio::select! {
            forwarded = forwarding => forwarded,
            copied = tokio::io::copy(&mut back, &mut write) => copied.map(drop),
        }
    }
}
