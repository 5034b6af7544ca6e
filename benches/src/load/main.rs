//! Load, and upstreams, of kinds that wrk, h2load and nginx do not have. `side-by-side` starts them, each on the core of
//! the load.

mod connections;
mod hop;
mod idle;
mod keep_alive;
mod paced;
mod tls;
mod upstream;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tokio::task::JoinSet;

/// Load for benchmarks.
#[derive(Debug, Parser)]
enum Command {
    /// Listens on all addresses, reads a ClientHello, answers a little and closes.
    Answer {
        /// Where.
        port: u16,
    },
    /// Listens on all addresses, reads a ClientHello, and sends without end.
    Pour {
        /// Where.
        port: u16,
    },
    /// Relays bytes and does nothing else.
    Hop {
        /// Where it listens.
        port: u16,
        /// Where to.
        to: u16,
    },
    /// Opens connections one after the other, each with a ClientHello, and reads what comes to its end.
    Connections {
        /// To which port of `127.0.0.0/8`.
        port: u16,
        /// For how long.
        seconds: u64,
        /// The server name; `{}` in it is a number below a thousand.
        name: String,
    },
    /// Reads without end what comes after a ClientHello.
    Stream {
        /// From which port.
        port: u16,
        /// For how long.
        seconds: u64,
        /// The server name.
        name: String,
    },
    /// HTTP/1.1 requests over mutual TLS, on connections that are kept.
    KeepAlive {
        /// To which port.
        port: u16,
        /// For how long.
        seconds: u64,
        /// How many connections.
        connections: usize,
        /// The folder of the certificates.
        tls: PathBuf,
    },
    /// HTTP/1.1 requests at a fixed rate, whether they are answered or not; prints how long answers took.
    Paced {
        /// To which port.
        port: u16,
        /// For how long.
        seconds: u64,
        /// Requests in a second.
        rate: u64,
    },
    /// Opens connections with one request each, says `ready`, and holds them until its input ends.
    Idle {
        /// To which port.
        port: u16,
        /// How many.
        connections: usize,
        /// The folder of the certificates, for TLS.
        tls: Option<PathBuf>,
    },
}

fn main() -> anyhow::Result<()> {
    let command = Command::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = async {
        match command {
            Command::Answer { port } => upstream::answer(port).await,
            Command::Pour { port } => upstream::pour(port).await,
            Command::Hop { port, to } => hop::run(port, to).await,
            Command::Connections { port, seconds, name } => {
                connections::flood(port, Duration::from_secs(seconds), &name).await
            }
            Command::Stream { port, seconds, name } => {
                connections::stream(port, Duration::from_secs(seconds), &name).await
            }
            Command::KeepAlive { port, seconds, connections, tls } => {
                keep_alive::run(port, Duration::from_secs(seconds), connections, &tls).await
            }
            Command::Paced { port, seconds, rate } => paced::run(port, Duration::from_secs(seconds), rate),
            Command::Idle { port, connections, tls } => idle::run(port, connections, tls.as_deref()).await,
        }
    };
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// Tells `side-by-side` something.
#[expect(clippy::print_stdout, reason = "the command's output")]
fn tell(line: &str) {
    println!("{line}");
}

/// Tells what all clients together have done, once they have.
///
/// # Errors
/// When one of them failed.
async fn tell_sum(what: &str, mut clients: JoinSet<anyhow::Result<u64>>) -> anyhow::Result<()> {
    let mut sum = 0;
    while let Some(done) = clients.join_next().await {
        sum += done??;
    }
    tell(&format!("{what}={sum}"));
    Ok(())
}
