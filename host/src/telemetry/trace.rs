//! Weir's own log: `tracing` events to stderr, through a sink that never blocks a worker.

use std::io::{IsTerminal, Write};
use std::panic;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::telemetry::sink::{Given, Losses, Name, Sink};

/// Starts logging, panics included. The level comes from `WEIR_LOG` in `tracing`'s directive syntax, and is `info` without it.
///
/// # Errors
/// When the thread that writes cannot be started.
pub fn init() -> std::io::Result<Sink> {
    let name = Name { thread: "weir-log", log: None };
    let sink = Sink::new(name, Given::of(std::io::stderr())?, Losses::default())?;
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A second initialisation (a test in the same process) keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_writer(SinkWriter(sink.clone()))
        .try_init();
    // What `std` would do is to wait until stderr takes it. The process may end with this: it waits a second at most.
    let told = sink.clone();
    panic::set_hook(Box::new(move |panicked| {
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(thread = thread.name(), "{panicked}\n{backtrace}");
        told.flush();
    }));
    Ok(sink)
}

#[derive(Debug)]
struct SinkWriter(Sink);

impl<'a> MakeWriter<'a> for SinkWriter {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { sink: &self.0, bytes: Vec::new() }
    }
}

/// Gathers one event, and hands it over as one line when it is complete.
struct Line<'a> {
    sink: &'a Sink,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.sink.line(std::mem::take(&mut self.bytes));
    }
}
