//! The hostile client: it gives a guest what it needs to do its harm, and does not care about answers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::hostile::Way;

/// Connections at a time.
const CONNECTIONS: u32 = 4;
/// The distance of requests on each of them.
const RHYTHM: Duration = Duration::from_millis(20);
/// How long each may take.
const TIMEOUT: Duration = Duration::from_millis(500);
/// The distance of copies over a version that serves.
const COPIES: Duration = Duration::from_millis(500);

/// A body of three chunks, and trailers.
fn request() -> Vec<u8> {
    let mut bytes = b"POST /hostile HTTP/1.1\r\nhost: hostile\r\ntransfer-encoding: chunked\r\n\
        te: trailers\r\ntrailer: x-end\r\n\r\n"
        .to_vec();
    for _ in 0..3 {
        bytes.extend_from_slice(b"1000\r\n");
        bytes.extend_from_slice(&[b'x'; 0x1000]);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\nx-end: 1\r\n\r\n");
    bytes
}

/// What is being done until it is stopped.
#[derive(Debug)]
pub struct Provoking {
    over: Arc<AtomicBool>,
    provoked: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

/// Begins to provoke a guest behind an address, or by copies into a plugin's place.
///
/// # Panics
/// When a thread cannot be started.
pub fn start(way: Way, address: SocketAddr, copies: Option<(PathBuf, Vec<u8>)>) -> Provoking {
    let (over, provoked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let count = if way == Way::Copies { 1 } else { CONNECTIONS };
    let threads = (0..count).map(|_| {
        let (over, provoked, copies) = (Arc::clone(&over), Arc::clone(&provoked), copies.clone());
        std::thread::spawn(move || {
            for round in 0u32.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let began = Instant::now();
                let rhythm = match (way, &copies) {
                    (Way::Copies, Some((place, bytes))) => {
                        copy(place, bytes, round);
                        COPIES
                    }
                    (Way::Requests | Way::Connections | Way::Copies, _) => {
                        // Whatever becomes of it.
                        let _ = exchange(way, address);
                        RHYTHM
                    }
                };
                provoked.fetch_add(1, Ordering::Relaxed);
                // The rhythm of the provocation, and no wait for anything.
                std::thread::sleep(rhythm.saturating_sub(began.elapsed()));
            }
        })
    });
    Provoking { threads: threads.collect(), over, provoked }
}

impl Provoking {
    /// Does something else on a thread of its own, until it is told that it is over; it counts what it has begun.
    pub fn with(run: impl FnOnce(Arc<AtomicBool>, Arc<AtomicUsize>) + Send + 'static) -> Self {
        let (over, provoked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let own = (Arc::clone(&over), Arc::clone(&provoked));
        Self { threads: vec![std::thread::spawn(move || run(own.0, own.1))], over, provoked }
    }

    /// Stops, and tells how often the guest was provoked.
    ///
    /// # Panics
    /// When a thread of it panicked.
    pub fn stop(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a thread of the hostile client"));
        self.provoked.load(Ordering::Relaxed)
    }
}

/// A request on a connection of its own, up to the end of it or of patience.
fn exchange(way: Way, address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    match way {
        Way::Connections => stream.write_all(b"raw bytes that are no HTTP")?,
        Way::Requests | Way::Copies => stream.write_all(&request())?,
    }
    // A large answer is taken by a few reads, which take less of the processors.
    let mut buffer = [0; 64 << 10];
    let ended = |bytes: &[u8]| [&b"hello\n"[..], b"\r\n\r\n"].iter().any(|end| bytes.ends_with(end));
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 || ended(&buffer[..len]) {
            break;
        }
    }
    Ok(())
}

/// Copies a module into a plugin's place as an operator would, with a custom section that makes it another version.
fn copy(place: &std::path::Path, bytes: &[u8], number: u32) {
    let beside = place.with_extension("new");
    let written = std::fs::write(&beside, distinct(bytes, number));
    written.and_then(|()| std::fs::rename(&beside, place)).expect("the plugin directory can be written");
}

/// A module with a custom section behind it: the same code, and another version.
pub fn distinct(bytes: &[u8], number: u32) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.extend_from_slice(&[0, 9, 4, b'm', b'a', b'r', b'k']);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes
}
