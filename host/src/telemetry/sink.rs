//! A line sink that never blocks its writers: a bounded queue, a thread that writes, a count of what was dropped.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// Takes lines. Clones write to the same place.
#[derive(Debug, Clone)]
pub struct Sink {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// How many lines may wait for a slow writer before further ones are dropped.
const QUEUE: usize = 8 * 1024;

impl Sink {
    /// A sink that writes to `out` from a thread of its own. What `out` refuses is dropped and counted.
    pub fn new(name: &str, out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || write_all(lines, out, &counted))?;
        Ok(Self { queue, dropped })
    }

    /// Hands over a line, its newline included, or drops it when the queue is full.
    pub fn line(&self, line: Vec<u8>) {
        match self.queue.try_send(Message::Line(line)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How many lines were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until what was handed over has been written, a second at most.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(message) {
            if Instant::now() > deadline {
                return;
            }
            message = back;
            std::thread::yield_now();
        }
        // An error means that the time is up, or that the thread is gone: nothing is left to wait for.
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn write_all(lines: Receiver<Message>, mut out: impl Write, dropped: &AtomicU64) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(first) = lines.recv() {
        let mut flushes = Vec::new();
        let mut count = 0;
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    batch.extend_from_slice(&line);
                    count += 1;
                }
                Message::Flush(done) => flushes.push(done),
            }
            next = if batch.len() < BATCH { lines.try_recv().ok() } else { None };
        }
        if out.write_all(&batch).and_then(|()| out.flush()).is_err() {
            dropped.fetch_add(count, Ordering::Relaxed);
        }
        batch.clear();
        for done in flushes {
            // Whoever asked may have stopped waiting.
            let _ = done.try_send(());
        }
    }
}

/// Bytes that one write gathers.
const BATCH: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    struct Gate(Receiver<()>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.recv().map_err(std::io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_writer_that_hangs_blocks_nobody_and_what_it_missed_is_counted() {
        let (open, gate) = channel();
        let sink = Sink::new("test-sink", Gate(gate)).expect("a thread");
        for _ in 0..QUEUE * 2 + 2 {
            sink.line(b"line\n".to_vec());
        }
        assert!(sink.dropped() > 0);
        drop(open);
    }

    #[test]
    fn a_writer_that_fails_is_counted_and_the_sink_goes_on() {
        let (open, gate) = channel();
        drop(open);
        let sink = Sink::new("test-sink", Gate(gate)).expect("a thread");
        sink.line(b"one\n".to_vec());
        sink.flush();
        assert_eq!(sink.dropped(), 1);
        sink.line(b"two\n".to_vec());
        sink.flush();
        assert_eq!(sink.dropped(), 2);
    }
}
