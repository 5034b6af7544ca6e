//! Floods and slow attacks: clients in their thousands that hold what they can get, beside neighbours that must not feel
//! it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::soak::neighbours::Outcomes;
use crate::soak::provoke::Provoking;

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// They begin a request and send another header a byte at a time (slowloris).
    SlowHeaders,
    /// They announce a body and send it a byte at a time (R.U.D.Y.).
    SlowBodies,
    /// They ask for something large and read nothing of it.
    SlowReads,
    /// They send nothing.
    Silence,
    /// They send headers up to the limit, and keep the last byte.
    Headers,
    /// They send chunks of one byte, as fast as they can.
    TinyChunks,
    /// They connect and hang up, as fast as they can.
    Connections,
    /// They send requests and never read the answers.
    Pipelines,
}

/// All of them.
pub const ALL: [Flood; 8] = [
    Flood::SlowHeaders,
    Flood::SlowBodies,
    Flood::SlowReads,
    Flood::Silence,
    Flood::Headers,
    Flood::TinyChunks,
    Flood::Connections,
    Flood::Pipelines,
];

/// The rhythm of the slow ones.
const SLOW: Duration = Duration::from_millis(200);
/// The rhythm of a client that is fast, so that two thousand of them are a flood and not the end of the machine.
const FAST: Duration = Duration::from_millis(50);

impl Flood {
    /// Its name, in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::SlowHeaders => "slow-headers",
            Self::SlowBodies => "slow-bodies",
            Self::SlowReads => "slow-reads",
            Self::Silence => "silence",
            Self::Headers => "headers",
            Self::TinyChunks => "tiny-chunks",
            Self::Connections => "connections",
            Self::Pipelines => "pipelines",
        }
    }

    /// Begins, with so many clients. `sent` counts their bytes.
    ///
    /// # Panics
    /// When a thread cannot be started.
    pub fn start(self, address: SocketAddr, clients: usize, sent: &Arc<AtomicU64>) -> Provoking {
        let sent = Arc::clone(sent);
        Provoking::with(move |over, begun| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(self.run(address, clients, &over, &begun, &sent));
        })
    }

    async fn run(
        self,
        address: SocketAddr,
        clients: usize,
        over: &Arc<AtomicBool>,
        begun: &Arc<AtomicUsize>,
        sent: &Arc<AtomicU64>,
    ) {
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..clients {
            let client = Client { flood: self, address, begun: Arc::clone(begun), sent: Arc::clone(sent) };
            all.spawn(async move {
                loop {
                    // Whatever becomes of it: the next one comes.
                    let _ = client.attack().await;
                    tokio::time::sleep(FAST).await;
                }
            });
        }
        while !over.load(Ordering::Relaxed) {
            tokio::time::sleep(FAST).await;
        }
        all.shutdown().await;
    }
}

struct Client {
    flood: Flood,
    address: SocketAddr,
    begun: Arc<AtomicUsize>,
    sent: Arc<AtomicU64>,
}

impl Client {
    /// One attack, up to the end of its connection.
    async fn attack(&self) -> std::io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        if self.flood == Flood::SlowReads || self.flood == Flood::Pipelines {
            socket.set_recv_buffer_size(4096)?;
        }
        let mut stream = socket.connect(self.address).await?;
        self.begun.fetch_add(1, Ordering::Relaxed);
        match self.flood {
            Flood::SlowHeaders => {
                self.send(&mut stream, b"GET / HTTP/1.1\r\nhost: flood\r\nx-slow: ").await?;
                self.drip(&mut stream, b"x", SLOW).await
            }
            Flood::SlowBodies => {
                let head = b"POST / HTTP/1.1\r\nhost: flood\r\ncontent-length: 100000\r\n\r\n";
                self.send(&mut stream, head).await?;
                self.drip(&mut stream, b"x", SLOW).await
            }
            Flood::SlowReads => {
                self.send(&mut stream, b"GET /large HTTP/1.1\r\nhost: flood\r\n\r\n").await?;
                self.until_it_is_closed(&mut stream).await
            }
            Flood::Silence => self.until_it_is_closed(&mut stream).await,
            Flood::Headers => {
                let mut head = b"GET / HTTP/1.1\r\nhost: flood\r\n".to_vec();
                for number in 0..50 {
                    head.extend_from_slice(format!("x-{number}: {}\r\n", "y".repeat(1000)).as_bytes());
                }
                self.send(&mut stream, &head).await?;
                self.until_it_is_closed(&mut stream).await
            }
            Flood::TinyChunks => {
                let head = b"POST / HTTP/1.1\r\nhost: flood\r\ntransfer-encoding: chunked\r\n\r\n";
                self.send(&mut stream, head).await?;
                self.drip(&mut stream, &b"1\r\nx\r\n".repeat(100), FAST).await
            }
            Flood::Connections => Ok(()),
            Flood::Pipelines => {
                let requests = b"GET / HTTP/1.1\r\nhost: flood\r\n\r\n".repeat(20);
                self.drip(&mut stream, &requests, FAST).await
            }
        }
    }

    async fn send(&self, stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
        stream.write_all(bytes).await?;
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Sends the same again and again. It does not read, which says nothing of whether it is answered.
    async fn drip(&self, stream: &mut TcpStream, bytes: &[u8], rhythm: Duration) -> std::io::Result<()> {
        loop {
            self.send(stream, bytes).await?;
            // The rhythm of the attack, and no wait for anything.
            tokio::time::sleep(rhythm).await;
        }
    }

    /// Holds the connection, and looks now and then whether it is still there.
    async fn until_it_is_closed(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        loop {
            tokio::time::sleep(SLOW).await;
            let ended = timeout(Duration::from_millis(1), stream.read_u8()).await;
            if matches!(ended, Ok(Err(_))) {
                return Ok(());
            }
        }
    }
}

/// What a connection may take whatever it sends, in bytes: with one to the upstream, and `per_connection_buffer_limit` (64 KiB)
/// of an answer that is not taken.
const CONNECTION: u64 = 128 << 10;

/// Whether a flood had memory taken out of proportion: a hundred times what it sent, and what its connections are.
pub fn out_of_proportion(outcomes: &Outcomes, clients: usize, sent: u64) -> Option<String> {
    let [before, peak, _] = outcomes.usage;
    let taken = peak.resident.saturating_sub(before.resident);
    let may = CONNECTION * clients as u64 + 100 * sent;
    (taken > may).then(|| format!("{} MiB for {} KiB that were sent", taken >> 20, sent >> 10))
}
