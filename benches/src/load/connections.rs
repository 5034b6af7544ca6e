//! New connections through a proxy that looks at the ClientHello, and bytes in bulk through such a one.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::bail;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::{tell_sum, tls};

/// Connections that are under way at a time.
const AT_A_TIME: usize = 64;
/// Server names, and addresses of loopback on which the proxy is called.
const NAMES: usize = 1000;
const ADDRESSES: usize = 50;
/// Streams that are under way at a time.
const STREAMS: usize = 4;
/// How much is taken at a time.
const TAKEN: usize = 1 << 20;

/// Opens connections, reads what comes on each to its end, and prints `count=N`.
///
/// # Errors
/// When a connection fails.
pub async fn flood(port: u16, duration: Duration, name: &str) -> anyhow::Result<()> {
    let hellos = (0..NAMES)
        .map(|n| tls::hello(&name.replace("{}", &n.to_string())))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let (hellos, next) = (Rc::new(hellos), Rc::new(Cell::new(0_usize)));
    let deadline = Instant::now() + duration;
    let mut clients = JoinSet::new();
    for _ in 0..AT_A_TIME {
        let (hellos, next) = (Rc::clone(&hellos), Rc::clone(&next));
        clients.spawn_local(async move {
            let mut count = 0_u64;
            while Instant::now() < deadline {
                let number = next.replace(next.get() + 1);
                let hello = &hellos[number % NAMES];
                let last = u8::try_from(1 + number % ADDRESSES)?;
                let mut socket = TcpStream::connect(SocketAddr::from(([127, 0, 0, last], port))).await?;
                socket.write_all(hello).await?;
                let mut answer = [0; 256];
                let mut len = 0;
                loop {
                    match socket.read(&mut answer).await? {
                        0 => break,
                        more => len += more,
                    }
                }
                if len != 64 {
                    bail!("a connection ended after {len} bytes of 64");
                }
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    tell_sum("count", clients).await
}

/// Takes what comes, and prints `bytes=N`.
///
/// # Errors
/// When a stream ends.
pub async fn stream(port: u16, duration: Duration, name: &str) -> anyhow::Result<()> {
    let hello = tls::hello(name)?;
    let deadline = Instant::now() + duration;
    let mut clients = JoinSet::new();
    for _ in 0..STREAMS {
        let hello = hello.clone();
        clients.spawn_local(async move {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
            socket.write_all(&hello).await?;
            let (mut bytes, mut buffer) = (0_u64, vec![0; TAKEN]);
            while Instant::now() < deadline {
                socket.readable().await?;
                // What is truncated is thrown away in the kernel: reading is to cost as little as it can.
                let taken = socket.try_io(Interest::READABLE, || {
                    Ok(recv(&socket, buffer.as_mut_slice(), RecvFlags::TRUNC | RecvFlags::DONTWAIT)?.1)
                });
                match taken {
                    Ok(0) => bail!("a stream ended after {bytes} bytes"),
                    Ok(more) => bytes += more as u64,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
            anyhow::Ok(bytes)
        });
    }
    tell_sum("bytes", clients).await
}
