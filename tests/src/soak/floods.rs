//! Floods and slow attacks: clients in their thousands that hold what they can get, beside neighbours that must not feel
//! it. Each has a pace, so that what is offered can be told: what a machine cannot carry at all says nothing of the proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::soak::neighbours::Outcomes;
use crate::soak::process::{be_last, be_usual};
use crate::soak::provoke::Provoking;

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// They begin a request and send another header, a byte a second (slowloris).
    SlowHeaders,
    /// They announce a body and send it, a byte a second (R.U.D.Y.).
    SlowBodies,
    /// They ask for something large and read it, a byte a second.
    SlowReads,
    /// They send nothing.
    Silence,
    /// They send headers up to the limit, and keep the end back.
    Headers,
    /// They send chunks of one byte, twenty a second each.
    TinyChunks,
    /// They connect and hang up, once a second each.
    Connections,
    /// They send requests, two a second each and several at a time, and never read the answers.
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

/// The rhythm of the slow ones, and how long a client waits that was sent away.
const SLOW: Duration = Duration::from_secs(1);
/// The rhythm of chunks, ten at a time.
const CHUNKS: Duration = Duration::from_millis(500);
/// The rhythm of requests, four at a time.
const REQUESTS: Duration = Duration::from_secs(2);

/// How a flood is made.
#[derive(Debug, Clone, Copy)]
pub struct Rush {
    /// How many clients there are.
    pub clients: usize,
    /// Over how long their beginnings are spread.
    pub spread: Duration,
    /// Whether its thread stands back behind all others on the same cores, so that proxy, upstream and neighbours lack nothing
    /// that a flood from elsewhere would leave them. What it sends all the same is counted.
    pub stands_back: bool,
}

/// What a flood has offered.
#[derive(Debug, Default)]
pub struct Offered {
    /// Bytes that were sent.
    pub bytes: AtomicU64,
    /// CPU time that it took to do so, in microseconds; 0 until it is over.
    pub cpu: AtomicU64,
}

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

    /// Begins.
    ///
    /// # Panics
    /// When a thread cannot be started.
    pub fn start(self, address: SocketAddr, rush: Rush, offered: &Arc<Offered>) -> Provoking {
        let offered = Arc::clone(offered);
        Provoking::with(move |over, begun| {
            if rush.stands_back {
                be_last();
            } else {
                be_usual();
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(self.run(address, rush, &over, &begun, &offered));
            let spent = clock_gettime(ClockId::ThreadCPUTime);
            let spent = spent.tv_sec.cast_unsigned() * 1_000_000 + spent.tv_nsec.cast_unsigned() / 1000;
            offered.cpu.store(spent, Ordering::Relaxed);
        })
    }

    async fn run(
        self,
        address: SocketAddr,
        rush: Rush,
        over: &Arc<AtomicBool>,
        begun: &Arc<AtomicUsize>,
        offered: &Arc<Offered>,
    ) {
        let mut all = tokio::task::JoinSet::new();
        for number in 0..rush.clients {
            let (begun, offered) = (Arc::clone(begun), Arc::clone(offered));
            let client = Client { flood: self, address, begun, offered };
            let first = rush.spread.mul_f64(number as f64 / rush.clients as f64);
            all.spawn(async move {
                tokio::time::sleep(first).await;
                loop {
                    // Whatever becomes of it: the next one comes.
                    let _ = client.attack().await;
                    tokio::time::sleep(SLOW).await;
                }
            });
        }
        while !over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        all.shutdown().await;
    }
}

struct Client {
    flood: Flood,
    address: SocketAddr,
    begun: Arc<AtomicUsize>,
    offered: Arc<Offered>,
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
                loop {
                    stream.read_u8().await?;
                    // The rhythm of the attack, and no wait for anything.
                    tokio::time::sleep(SLOW).await;
                }
            }
            Flood::Silence => until_it_is_closed(&mut stream).await,
            Flood::Headers => {
                let mut head = b"GET / HTTP/1.1\r\nhost: flood\r\n".to_vec();
                for number in 0..50 {
                    head.extend_from_slice(format!("x-{number}: {}\r\n", "y".repeat(1000)).as_bytes());
                }
                self.send(&mut stream, &head).await?;
                until_it_is_closed(&mut stream).await
            }
            Flood::TinyChunks => {
                let head = b"POST / HTTP/1.1\r\nhost: flood\r\ntransfer-encoding: chunked\r\n\r\n";
                self.send(&mut stream, head).await?;
                self.drip(&mut stream, &b"1\r\nx\r\n".repeat(10), CHUNKS).await
            }
            Flood::Connections => Ok(()),
            Flood::Pipelines => {
                let requests = b"GET / HTTP/1.1\r\nhost: flood\r\n\r\n".repeat(4);
                self.drip(&mut stream, &requests, REQUESTS).await
            }
        }
    }

    async fn send(&self, stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
        stream.write_all(bytes).await?;
        self.offered.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
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
}

/// Holds the connection as long as it is there.
async fn until_it_is_closed(stream: &mut TcpStream) -> std::io::Result<()> {
    while stream.read(&mut [0; 512]).await? > 0 {}
    Ok(())
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
