//! A line sink that never blocks its writers: a bounded queue, a thread that writes, a count of what was lost.
//!
//! A reader that does not read, and a disk that is full, cost lines and nothing else. Once there is room again, lines are
//! whole again: one that was cut off is ended before the next.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use crate::telemetry::metrics::{Counter, Registry};
use crate::telemetry::seldom::Seldom;

/// Where lines go.
pub trait Output: Write + Send + 'static {
    /// Goes on with what is now in its place, when it has one.
    ///
    /// # Errors
    /// When that cannot be opened; what is open stays so.
    fn reopen(&mut self) -> io::Result<()>;
}

/// A descriptor that the process was given.
#[derive(Debug)]
pub struct Given(std::fs::File);

impl Given {
    /// Standard output, or another one. Not by way of `std`'s own, whose lock would be held for as long as a write hangs.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn of(descriptor: impl std::os::fd::AsFd) -> io::Result<Self> {
        descriptor.as_fd().try_clone_to_owned().map(|own| Self(own.into()))
    }
}

impl Write for Given {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for Given {
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines that were lost.
#[derive(Debug, Clone)]
pub struct Losses {
    /// The writer was behind.
    behind: Counter,
    /// They could not be written.
    unwritable: Counter,
}

impl Default for Losses {
    fn default() -> Self {
        Self { behind: Counter::alone(), unwritable: Counter::alone() }
    }
}

impl Losses {
    /// Shows them among the metrics, as those of the log with this name.
    pub fn expose(&self, registry: &Registry, log: &str) {
        for (reason, counter) in [("behind", &self.behind), ("unwritable", &self.unwritable)] {
            let help = "Lines of logs that were lost: the reader or the disk was behind, or they could not be written.";
            registry.adopt(
                "weir_log_lines_lost_total",
                help,
                &[("log", log), ("reason", reason)],
                counter.clone(),
            );
        }
    }

    #[cfg(test)]
    fn values(&self) -> (u64, u64) {
        (self.behind.value(), self.unwritable.value())
    }
}

/// Takes lines. Clones write to the same place.
#[derive(Debug, Clone)]
pub struct Sink {
    queue: SyncSender<Message>,
    /// Bytes that wait.
    waiting: Arc<AtomicUsize>,
    losses: Losses,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
    Reopen,
}

/// How many lines may wait for a slow writer before further ones are lost.
const QUEUE: usize = 8 * 1024;

/// How many bytes may wait.
const WAITING: usize = 8 * 1024 * 1024;

/// What a sink is called.
#[derive(Debug, Clone, Copy)]
pub struct Name {
    /// Its thread's name.
    pub thread: &'static str,
    /// What is said of it in Weir's own log when lines are lost; none for that log itself.
    pub log: Option<&'static str>,
}

impl Sink {
    /// A sink that writes to `out` from a thread of its own. What `out` refuses is lost and counted.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn new(name: Name, out: impl Output, losses: Losses) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        let waiting = Arc::new(AtomicUsize::new(0));
        let writer = Writer {
            out,
            log: name.log,
            waiting: Arc::clone(&waiting),
            losses: losses.clone(),
            torn: false,
            failing: false,
        };
        std::thread::Builder::new().name(name.thread.to_owned()).spawn(move || writer.run(&lines))?;
        Ok(Self { queue, waiting, losses })
    }

    /// Hands over a line, its newline included, or loses it when too much waits.
    pub fn line(&self, line: Vec<u8>) {
        let bytes = line.len();
        let fits = self.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes <= WAITING;
        let taken = fits && self.queue.try_send(Message::Line(line)).is_ok();
        if !taken {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.losses.behind.inc();
        }
    }

    /// What was lost.
    pub fn losses(&self) -> &Losses {
        &self.losses
    }

    /// Has the writer go on with what is now in the place of its output. A writer that is behind is asked in vain; that
    /// is logged.
    pub fn reopen(&self) {
        if self.queue.try_send(Message::Reopen).is_err() {
            tracing::error!("a log is not opened anew: its writer is behind; ask again");
        }
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

/// What the thread has.
struct Writer<O> {
    out: O,
    log: Option<&'static str>,
    waiting: Arc<AtomicUsize>,
    losses: Losses,
    /// Whether the last line was cut off.
    torn: bool,
    /// Whether the last write failed.
    failing: bool,
}

/// Bytes that one write gathers.
const BATCH: usize = 64 * 1024;

impl<O: Output> Writer<O> {
    fn run(mut self, lines: &Receiver<Message>) {
        let (mut batch, mut ends) = (Vec::with_capacity(BATCH), Vec::new());
        while let Ok(first) = lines.recv() {
            let (mut flushes, mut reopen) = (Vec::new(), false);
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Line(line) => {
                        self.waiting.fetch_sub(line.len(), Ordering::Relaxed);
                        batch.extend_from_slice(&line);
                        ends.push(batch.len());
                    }
                    Message::Flush(done) => flushes.push(done),
                    Message::Reopen => reopen = true,
                }
                next = if batch.len() < BATCH && !reopen { lines.try_recv().ok() } else { None };
            }
            if !batch.is_empty() {
                self.write(&batch, &ends);
            }
            if reopen {
                self.reopen();
            }
            batch.clear();
            ends.clear();
            for done in flushes {
                // Whoever asked may have stopped waiting.
                let _ = done.try_send(());
            }
        }
    }

    /// Writes lines, of which it is known where they end.
    fn write(&mut self, batch: &[u8], ends: &[usize]) {
        let mut written = 0;
        let failed = self.write_some(batch, &mut written).err();
        let whole = ends.partition_point(|end| *end <= written);
        let lost = ends.len() - whole;
        if written > 0 {
            self.torn = ends.binary_search(&written).is_err();
        }
        self.losses.unwritable.add(lost as u64);
        static SELDOM: Seldom = Seldom::new();
        let Some(log) = self.log else { return };
        match failed {
            Some(error) if !self.failing || SELDOM.now() => {
                tracing::error!(log, lost, %error, "lines of a log are lost; see whether the disk is full");
            }
            None if self.failing => tracing::info!(log, "the log is written again"),
            Some(_) | None => {}
        }
        self.failing = lost > 0;
    }

    fn write_some(&mut self, batch: &[u8], written: &mut usize) -> io::Result<()> {
        if self.torn {
            self.out.write_all(b"\n")?;
            self.torn = false;
        }
        while let Some(rest) = batch.get(*written..).filter(|rest| !rest.is_empty()) {
            match self.out.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => *written += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.flush()
    }

    fn reopen(&mut self) {
        match self.out.reopen() {
            Ok(()) => self.torn = false,
            Err(error) => {
                let log = self.log.unwrap_or_default();
                tracing::error!(log, %error, "a log cannot be opened anew; what was open goes on");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use super::*;

    const NAME: Name = Name { thread: "test-sink", log: None };

    struct Gate(Receiver<()>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output for Gate {
        fn reopen(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_writer_that_hangs_blocks_nobody_and_what_it_missed_is_counted() {
        let (open, gate) = channel();
        let sink = Sink::new(NAME, Gate(gate), Losses::default()).expect("a thread");
        for _ in 0..QUEUE * 2 + 2 {
            sink.line(b"line\n".to_vec());
        }
        let (behind, unwritable) = sink.losses().values();
        assert!(behind > 0 && unwritable == 0, "{behind}, {unwritable}");
        drop(open);
    }

    #[test]
    fn long_lines_that_wait_take_no_more_memory_than_short_ones_may() {
        let (open, gate) = channel();
        let sink = Sink::new(NAME, Gate(gate), Losses::default()).expect("a thread");
        let line = vec![b'a'; 64 * 1024];
        for _ in 0..1000 {
            sink.line(line.clone());
        }
        // What waits, and the batch that the thread holds.
        let most = ((WAITING + BATCH) / line.len() + 1) as u64;
        assert!(sink.losses().values().0 >= 1000 - most, "{:?}", sink.losses());
        assert!(sink.waiting.load(Ordering::Relaxed) <= WAITING);
        drop(open);
    }

    #[test]
    fn a_writer_that_fails_is_counted_and_the_sink_goes_on() {
        let (open, gate) = channel();
        drop(open);
        let sink = Sink::new(NAME, Gate(gate), Losses::default()).expect("a thread");
        sink.line(b"one\n".to_vec());
        sink.flush();
        assert_eq!(sink.losses().values(), (0, 1));
        sink.line(b"two\n".to_vec());
        sink.flush();
        assert_eq!(sink.losses().values(), (0, 2));
    }

    /// A disk with so much room left.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().expect("nobody panics here");
            let fits = bytes.len().min(disk.1);
            if fits == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.1 -= fits;
            disk.0.extend_from_slice(&bytes[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output for Disk {
        fn reopen(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_a_full_disk_has_cut_off_is_ended_before_the_next_and_counted_as_lost() {
        let disk = Disk::default();
        let sink = Sink::new(NAME, disk.clone(), Losses::default()).expect("a thread");
        let room = |bytes: usize| disk.0.lock().expect("nobody panics here").1 = bytes;
        room(14);
        for line in ["one two\n", "three four\n", "five\n"] {
            sink.line(line.into());
            sink.flush();
        }
        assert_eq!(sink.losses().values(), (0, 2));
        room(1000);
        for line in ["six\n", "seven\n"] {
            sink.line(line.into());
            sink.flush();
        }
        assert_eq!(sink.losses().values(), (0, 2));
        let written = disk.0.lock().expect("nobody panics here").0.clone();
        assert_eq!(String::from_utf8_lossy(&written), "one two\nthree \nsix\nseven\n");
    }
}
