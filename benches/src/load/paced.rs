//! Requests at a fixed rate: the next is sent when its time has come, whether the ones before were answered or not, and
//! how long an answer took counts from the time at which its request was to be sent.
//!
//! It spins, since timers are too coarse; so it has to run under `chrt -i 0`, or it takes the core from the upstream.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::keep_alive::{REQUEST, is_whole};
use crate::tell;

const CONNECTIONS: usize = 16;

struct Client {
    socket: TcpStream,
    /// When the request that is under way was to be sent.
    due: Option<Instant>,
    answer: Vec<u8>,
}

/// Asks until the time is over, and prints `p50=N p99=N max=N` in microseconds.
///
/// # Errors
/// When a request fails.
pub fn run(port: u16, duration: Duration, rate: u64) -> anyhow::Result<()> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        clients.push(Client { socket, due: None, answer: Vec::with_capacity(4096) });
    }
    let interval = Duration::from_secs(1) / u32::try_from(rate)?;
    let (start, mut waiting, mut took) = (Instant::now(), VecDeque::new(), Vec::new());
    let (end, mut next) = (start + duration, start);
    loop {
        let now = Instant::now();
        while next <= now && next < end {
            waiting.push_back(next);
            next += interval;
        }
        for client in &mut clients {
            if client.due.is_some() {
                took.extend(client.read()?);
            }
            if client.due.is_none()
                && let Some(due) = waiting.pop_front()
            {
                client.socket.write_all(REQUEST)?;
                client.due = Some(due);
            }
        }
        if now >= end && waiting.is_empty() && clients.iter().all(|client| client.due.is_none()) {
            break;
        }
        if now > end + Duration::from_secs(10) {
            bail!("{} requests were not answered in ten seconds", waiting.len());
        }
    }
    // The first tenth warms up.
    let mut took = took.split_off(took.len() / 10);
    took.sort_unstable();
    let at = |share: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
        let place = (took.len() as f64 * share) as usize;
        took.get(place.min(took.len() - 1)).map(|time| time.as_secs_f64() * 1e6).context("no answers")
    };
    tell(&format!("p50={:.1} p99={:.1} max={:.1}", at(0.5)?, at(0.99)?, at(1.0)?));
    Ok(())
}

impl Client {
    /// How long the answer took, when it is whole.
    fn read(&mut self) -> anyhow::Result<Option<Duration>> {
        let mut buffer = [0; 4096];
        match self.socket.read(&mut buffer) {
            Ok(0) => bail!("the connection ended in an answer"),
            Ok(len) => self.answer.extend(buffer.iter().take(len)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        if !is_whole(&self.answer)? {
            return Ok(None);
        }
        self.answer.clear();
        Ok(self.due.take().map(|due| due.elapsed()))
    }
}
