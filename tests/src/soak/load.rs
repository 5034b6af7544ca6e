//! A clean client at a steady rate, open loop: each request has its time, whatever became of those before it, and its
//! latency counts from then.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// When an answer that has not come is a failure.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Requests on one connection before the next: connections are a part of what neighbours do.
pub const REQUESTS: usize = 25;

/// A steady load.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where to.
    pub address: SocketAddr,
    /// What is asked for.
    pub path: &'static str,
    /// What every answer holds besides its status 200.
    pub header: Option<&'static str>,
    /// Requests in a second, over all connections.
    pub rate: u32,
    /// Connections, each with a thread: one that gets no answer holds up its own requests only.
    pub connections: u32,
    /// Requests on one connection before the next.
    pub per_connection: usize,
}

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// From the time that a request was meant for to its whole answer, in order of length.
    pub latencies: Vec<Duration>,
    /// How often requests failed, by reason.
    pub failures: BTreeMap<String, usize>,
}

impl Measured {
    /// The latency below which so large a part of the answers came; failures are not among them.
    pub fn quantile(&self, part: f64) -> Duration {
        let place = (self.latencies.len() as f64 * part) as usize;
        self.latencies.get(place.min(self.latencies.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    /// How many requests failed.
    pub fn failed(&self) -> usize {
        self.failures.values().sum()
    }
}

impl Load {
    /// Begins, and goes on for so long.
    ///
    /// # Panics
    /// When a thread cannot be started.
    pub fn start(&self, duration: Duration) -> Running {
        let start = Instant::now() + Duration::from_millis(5);
        let over = Arc::new(AtomicBool::new(false));
        let run = |number: u32| {
            let (load, over) = (self.clone(), Arc::clone(&over));
            std::thread::spawn(move || load.run_connection(number, start, duration, &over))
        };
        Running { threads: (0..self.connections).map(run).collect(), over }
    }

    fn run_connection(&self, number: u32, start: Instant, duration: Duration, over: &AtomicBool) -> Measured {
        let mut measured = Measured::default();
        let mut socket: Option<TcpStream> = None;
        let between = Duration::from_secs(1) / self.rate;
        for round in 0.. {
            let intended = between * (round * self.connections + number);
            if intended >= duration || over.load(Ordering::Relaxed) {
                break;
            }
            let intended = start + intended;
            // The rhythm of the load itself, and no wait for anything.
            std::thread::sleep(intended.saturating_duration_since(Instant::now()));
            if (round as usize).is_multiple_of(self.per_connection) {
                socket = None;
            }
            match self.exchange(&mut socket, intended) {
                Ok(()) => measured.latencies.push(intended.elapsed()),
                Err(error) => {
                    socket = None;
                    *measured.failures.entry(error.to_string()).or_default() += 1;
                }
            }
        }
        measured
    }

    fn exchange(&self, socket: &mut Option<TcpStream>, intended: Instant) -> Result<()> {
        let deadline = intended + TIMEOUT;
        let left = || match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(Error::from(ErrorKind::TimedOut)),
            left => Ok(left),
        };
        let mut stream = match socket.take() {
            Some(stream) => stream,
            None => TcpStream::connect_timeout(&self.address, left()?)?,
        };
        stream.set_nodelay(true)?;
        let request = format!("GET {} HTTP/1.1\r\nhost: neighbour\r\n\r\n", self.path);
        stream.set_read_timeout(Some(left()?))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !is_whole(&answer)? {
            stream.set_read_timeout(Some(left()?))?;
            let len = stream.read(&mut buffer).map_err(|error| match error.kind() {
                ErrorKind::WouldBlock => Error::from(ErrorKind::TimedOut),
                _ => error,
            })?;
            if len == 0 {
                return Err(Error::other("the connection was closed"));
            }
            answer.extend_from_slice(&buffer[..len]);
        }
        let answer = String::from_utf8_lossy(&answer);
        if !answer.starts_with("HTTP/1.1 200 ") {
            return Err(Error::other(answer.lines().next().unwrap_or_default().to_owned()));
        }
        if self.header.is_some_and(|header| !answer.contains(header)) {
            return Err(Error::other("a header of its own filter is missing"));
        }
        // A client that is told of the end does not ask on that connection again.
        let closes = answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n");
        *socket = (!closes).then_some(stream);
        Ok(())
    }
}

/// Whether an answer with a content-length has come whole.
fn is_whole(answer: &[u8]) -> Result<bool> {
    let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { return Ok(false) };
    let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let length: usize = length.ok_or_else(|| Error::other("an answer without content-length"))?;
    Ok(answer.len() >= head + 4 + length)
}

/// A load that is running.
#[derive(Debug)]
pub struct Running {
    threads: Vec<JoinHandle<Measured>>,
    over: Arc<AtomicBool>,
}

impl Running {
    /// Ends it before its time, and waits until it has.
    ///
    /// # Panics
    /// When a thread of it panicked.
    pub fn stop(self) -> Measured {
        self.over.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When a thread of it panicked.
    pub fn finish(self) -> Measured {
        let mut all = Measured::default();
        for thread in self.threads {
            let own = thread.join().expect("a thread of the load");
            all.latencies.extend(own.latencies);
            for (reason, count) in own.failures {
                *all.failures.entry(reason).or_default() += count;
            }
        }
        all.latencies.sort();
        all
    }
}
