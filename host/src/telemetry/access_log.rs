//! The access log: one JSON line for each request, or for each connection that is not HTTP.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use serde::{Serialize, Serializer};

use crate::telemetry::sink::{Given, Losses, Name, Output, Sink};

/// What is told of one request or connection. What does not apply is left out of the line.
#[derive(Debug, Serialize)]
pub struct Entry<'a> {
    /// When it began.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// The listener's name.
    pub listener: &'a str,
    /// The address of the downstream.
    pub peer: SocketAddr,
    /// The server name of the TLS handshake, in its canonical form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<&'a str>,
    /// Who the downstream is, by its verified certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<&'a str>,
    /// The request, when there is one.
    #[serde(flatten)]
    pub request: Option<RequestPart<'a>>,
    /// The filter that decided (replied, or closed the stream).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<&'a str>,
    /// Why: the filter's details, or Weir's own reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// The cluster that was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<&'a str>,
    /// The endpoint that was connected to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<SocketAddr>,
    /// Bytes of body (or of the stream) from the downstream.
    pub bytes_received: u64,
    /// Bytes of body (or of the stream) to the downstream.
    pub bytes_sent: u64,
    /// From the first byte to the last, in milliseconds.
    #[serde(serialize_with = "millis")]
    pub duration_ms: Duration,
    /// Until the upstream's response headers (or its connection) were there, in milliseconds.
    #[serde(serialize_with = "some_millis", skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<Duration>,
}

/// What is told of an HTTP request.
#[derive(Debug, Serialize)]
pub struct RequestPart<'a> {
    /// The client's address: the peer's, or the one that proxies in front tell, where they are trusted.
    pub client: IpAddr,
    /// The method.
    pub method: &'a str,
    /// `:authority`, or the Host header.
    pub authority: &'a str,
    /// Path and query, as received.
    pub path: &'a str,
    /// `HTTP/1.1`, `HTTP/2`.
    pub protocol: &'a str,
    /// The id that `x-request-id` carries.
    pub request_id: &'a str,
    /// The route's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// The status that was sent; absent when none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// Where access log lines go.
#[derive(Debug, Clone)]
pub struct AccessLog(Sink);

/// A file that lines are appended to.
struct LogFile {
    path: PathBuf,
    file: File,
}

/// Opens a file to append to. A pipe that nobody reads is an error, and nothing to wait for.
fn append_to(path: &Path) -> io::Result<File> {
    let at_once = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().create(true).append(true).custom_flags(at_once).open(path)?;
    // From here on it is the writer's thread that waits.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for LogFile {
    fn reopen(&mut self) -> io::Result<()> {
        self.file = append_to(&self.path)?;
        Ok(())
    }
}

const NAME: Name = Name { thread: "weir-access-log", log: Some("access") };

impl AccessLog {
    /// A log on standard output. What is lost is counted in `losses`.
    ///
    /// # Errors
    /// When the thread that writes cannot be started.
    pub fn stdout(losses: Losses) -> io::Result<Self> {
        Sink::new(NAME, Given::of(io::stdout())?, losses).map(Self)
    }

    /// A log that appends to a file.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn file(path: &Path, losses: Losses) -> io::Result<Self> {
        let file = append_to(path)?;
        Sink::new(NAME, LogFile { path: path.to_owned(), file }, losses).map(Self)
    }

    /// Opens the file anew, in its place: what was there before may have been moved away.
    pub fn reopen(&self) {
        self.0.reopen();
    }

    /// Writes a line, or loses it when the writer is behind.
    pub fn write(&self, entry: &Entry<'_>) {
        let mut line = Vec::with_capacity(512);
        // Nothing in an entry can fail to serialise.
        if serde_json::to_writer(&mut line, entry).is_ok() {
            line.push(b'\n');
            self.0.line(line);
        }
    }

    /// Waits until what was handed over is written, a second at most.
    pub fn flush(&self) {
        self.0.flush();
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(&humantime::format_rfc3339_millis(*time))
}

fn millis<S: Serializer>(duration: &Duration, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64(duration.as_micros() as f64 / 1000.0)
}

fn some_millis<S: Serializer>(duration: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => millis(duration, out),
        None => out.serialize_none(),
    }
}
