//! Handing listening sockets over from one process to the next, through a Unix socket (ADR 0016).
//!
//! ```text
//! new                                old
//!  | -- ask { protocol, version } --> |
//!  | <- offer { version, sockets } -- |  then the descriptors, in batches behind one byte each
//!  | -- ready ----------------------> |  the new one serves
//!  | <- draining -------------------- |  the old one takes nothing new
//! ```
//!
//! A message is its length in four bytes, most significant first, and JSON. Instead of any of its own the old one may
//! say `refused { reason }`. Fields that one side does not know it passes over. Both sides check that the other is run by the same user.

mod door;

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::net::inherit::{Inheritance, Inherited};

pub use door::{Door, Made};

/// The protocol that is spoken here. Another number is another protocol, and refused.
const PROTOCOL: u32 = 1;

/// The longest message.
const LONGEST: u32 = 1 << 20;

/// Descriptors that travel behind one byte; Linux takes 253 at most.
const BATCH: usize = 128;

/// How long one message may take that the other side has nothing to wait for.
const SOON: Duration = Duration::from_secs(10);

/// How long the new process may take from the sockets to being ready: it has compiled and configured its plugins before
/// it asks.
const READY: Duration = Duration::from_secs(30);

/// What is said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    Ask { protocol: u32, version: String },
    Offer { version: String, sockets: Vec<Lent> },
    Ready {},
    Draining {},
    Refused { reason: String },
}

/// Sockets of one listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lent {
    /// The listener's name.
    pub name: String,
    /// Where they listen.
    pub address: SocketAddr,
    /// How many there are.
    pub count: usize,
}

/// The new process, as the old one sees it.
#[derive(Debug)]
pub struct Successor {
    stream: UnixStream,
    /// Its version of Weir.
    pub version: String,
    /// Its number.
    pub pid: i32,
}

impl Successor {
    /// Listens to somebody who came through the door, until it is clear that it is a successor.
    ///
    /// # Errors
    /// When it is none.
    async fn meet(stream: UnixStream) -> io::Result<Self> {
        let pid = same_user(&stream)?;
        let mut successor = Self { stream, version: String::new(), pid };
        match soon(receive(&mut successor.stream)).await? {
            Message::Ask { protocol: PROTOCOL, version } => {
                successor.version = version;
                Ok(successor)
            }
            Message::Ask { protocol, .. } => {
                let reason = format!("it speaks protocol {PROTOCOL} of takeovers, and not {protocol}");
                successor.refuse(&reason).await;
                Err(io::Error::new(io::ErrorKind::Unsupported, reason))
            }
            other @ (Message::Offer { .. }
            | Message::Ready {}
            | Message::Draining {}
            | Message::Refused { .. }) => Err(unexpected(&other)),
        }
    }

    /// Hands the sockets over, and waits until the new process serves.
    ///
    /// # Errors
    /// When it does not; the old one goes on then.
    pub async fn serve(&mut self, lent: Vec<Lent>, sockets: &[TcpListener]) -> io::Result<()> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        soon(async {
            send(&mut self.stream, &Message::Offer { version, sockets: lent }).await?;
            for batch in sockets.chunks(BATCH) {
                send_descriptors(&self.stream, batch).await?;
            }
            Ok(())
        })
        .await?;
        match within(READY, receive(&mut self.stream)).await? {
            Message::Ready {} => Ok(()),
            other @ (Message::Ask { .. }
            | Message::Offer { .. }
            | Message::Draining {}
            | Message::Refused { .. }) => Err(unexpected(&other)),
        }
    }

    /// Tells that nothing new is taken from now on.
    pub async fn relieved(&mut self) {
        // It serves, whether it hears of this or not.
        let _ = soon(send(&mut self.stream, &Message::Draining {})).await;
    }

    /// Tells why it gets nothing, or is too late.
    pub async fn refuse(&mut self, reason: &str) {
        // Whoever is gone need not know.
        let _ = soon(send(&mut self.stream, &Message::Refused { reason: reason.to_owned() })).await;
    }
}

/// The old process, as the new one sees it.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

impl Predecessor {
    /// The process that serves at a place; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be reached, or is somebody else's.
    pub async fn find(place: &Path) -> io::Result<Option<Self>> {
        match UnixStream::connect(place).await {
            Ok(stream) => {
                same_user(&stream)?;
                Ok(Some(Self(stream)))
            }
            // A process that was killed leaves its place behind.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks for its sockets.
    ///
    /// # Errors
    /// When it does not hand them over.
    pub async fn sockets(&mut self) -> io::Result<Inheritance> {
        let ask = Message::Ask { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() };
        soon(send(&mut self.0, &ask)).await?;
        // It may be in the midst of a reload.
        let lent = match within(READY, receive(&mut self.0)).await? {
            Message::Offer { version, sockets } => {
                tracing::info!(version, listeners = sockets.len(), "the running Weir hands over its sockets");
                sockets
            }
            Message::Refused { reason } => return Err(io::Error::other(reason)),
            other @ (Message::Ask { .. } | Message::Ready {} | Message::Draining {}) => {
                return Err(unexpected(&other));
            }
        };
        let expected = lent.iter().map(|lent| lent.count).sum();
        let mut sockets = Vec::new();
        while sockets.len() < expected {
            sockets.extend(soon(receive_descriptors(&self.0)).await?);
        }
        let names = lent.iter().flat_map(|lent| std::iter::repeat_n(&lent.name, lent.count));
        let sockets = names.zip(sockets);
        Inheritance::of(
            sockets.map(|(name, fd)| Inherited { name: Some(name.clone()), socket: fd.into() }).collect(),
        )
    }

    /// Tells that its sockets are accepted from, and waits until it takes nothing new itself.
    ///
    /// # Errors
    /// When it has stopped waiting, and goes on to serve.
    pub async fn relieve(mut self) -> io::Result<()> {
        let ready = soon(send(&mut self.0, &Message::Ready {})).await;
        let said = match ready {
            Ok(()) => soon(receive(&mut self.0)).await,
            Err(error) => Err(error),
        };
        match said {
            Ok(Message::Refused { reason }) => Err(io::Error::other(reason)),
            Ok(Message::Ask { .. } | Message::Offer { .. } | Message::Ready {} | Message::Draining {}) => {
                Ok(())
            }
            // It may hang, and nobody is served better by two that wait for each other.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                tracing::warn!(%error, "the old process has not said that it takes nothing new; look whether it still runs");
                Ok(())
            }
            // It has ended meanwhile: nobody serves but this process.
            Err(error) => {
                tracing::warn!(%error, "the old process has gone");
                Ok(())
            }
        }
    }
}

/// The other side's process, when it is of the same user.
fn same_user(stream: &UnixStream) -> io::Result<i32> {
    let peer = stream.peer_cred()?;
    let (peers, own) = (peer.uid(), rustix::process::geteuid().as_raw());
    if peers != own {
        let message = format!("the other process is run by user {peers}, and not by {own}; run both as one");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(peer.pid().unwrap_or_default())
}

fn unexpected(message: &Message) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("this is not the turn of {message:?}"))
}

async fn soon<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    within(SOON, work).await
}

async fn within<T>(time: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(time, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the other side has not answered for {time:?}"),
        )),
    }
}

async fn send(stream: &mut UnixStream, message: &Message) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&text).await
}

async fn receive(stream: &mut UnixStream) -> io::Result<Message> {
    let length = stream.read_u32().await?;
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    let mut text = Vec::new();
    (&mut *stream).take(length.into()).read_to_end(&mut text).await?;
    Ok(serde_json::from_slice(&text)?)
}

async fn send_descriptors(stream: &UnixStream, sockets: &[TcpListener]) -> io::Result<()> {
    let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        beside.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(stream, &[IoSlice::new(b"+")], &mut beside, SendFlags::NOSIGNAL)?;
        Ok(())
    };
    stream.async_io(Interest::WRITABLE, send).await
}

/// The descriptors of one batch.
///
/// # Errors
/// When the other side is gone, or this process may not have all of them: Linux then leaves the rest out.
async fn receive_descriptors(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let receive = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let came = recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
        let mut descriptors = Vec::new();
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        if came.flags.contains(ReturnFlags::CTRUNC) {
            let message = "not all of the sockets have come, since this process may not have so many open files; \
                           raise the limit (`ulimit -n`, `LimitNOFILE=`)";
            return Err(io::Error::other(message));
        }
        if came.bytes == 0 || descriptors.is_empty() {
            let message = "it went before all of its sockets had come";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        Ok(descriptors)
    };
    stream.async_io(Interest::READABLE, receive).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::listen;

    /// Both ends of a connection through a door.
    async fn pair(folder: &Path) -> (Predecessor, Successor) {
        let place = folder.join("door");
        let (door, mut successors) = Door::make(&place).await.and_then(Made::open).expect("a door");
        let mut old = Predecessor::find(&place).await.expect("it can be asked").expect("it is there");
        let ask = Message::Ask { protocol: PROTOCOL, version: "other".to_owned() };
        send(&mut old.0, &ask).await.expect("sent");
        let new = successors.recv().await.expect("a successor");
        drop(door);
        (old, new)
    }

    #[tokio::test(flavor = "local")]
    async fn more_sockets_than_one_batch_arrive_in_order_with_their_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("door");
        let (_door, mut successors) = Door::make(&place).await.and_then(Made::open).expect("a door");
        let mut old = Predecessor::find(&place).await.expect("it can be asked").expect("it is there");
        let asking = tokio::task::spawn_local(async move { (old.sockets().await, old) });
        let mut new = successors.recv().await.expect("a successor");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (many, few) =
            (listen::bind(any, BATCH + 2).expect("a port"), listen::bind(any, 1).expect("a port"));
        let addresses = [&many, &few].map(|sockets| sockets[0].local_addr().expect("an address"));
        let lent = |name: &str, sockets: &[TcpListener]| Lent {
            name: name.to_owned(),
            address: sockets[0].local_addr().expect("an address"),
            count: sockets.len(),
        };
        let lists = vec![lent("many", &many), lent("few", &few)];
        let sockets: Vec<_> = many.into_iter().chain(few).collect();
        let serving = tokio::task::spawn_local(async move { new.serve(lists, &sockets).await });
        let (given, old) = asking.await.expect("no panic");
        let mut given = given.expect("they come");
        assert_eq!(given.take("many", any).len(), BATCH + 2);
        assert_eq!(given.take("few", addresses[1]).len(), 1);
        drop(old);
        assert!(
            serving.await.expect("no panic").is_err(),
            "one that goes before it is ready has not taken over"
        );
    }

    #[tokio::test(flavor = "local")]
    async fn a_predecessor_that_has_given_up_waiting_is_told_apart_from_one_that_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (old, mut new) = pair(folder.path()).await;
        new.refuse("too late").await;
        assert_eq!(old.relieve().await.expect_err("it goes on").to_string(), "too late");
        let (old, new) = pair(folder.path()).await;
        drop(new);
        old.relieve().await.expect("nobody else serves");
    }

    #[tokio::test(flavor = "local")]
    async fn who_speaks_another_protocol_is_told_so_and_hears_which_one_is_spoken() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("door");
        let (_door, _successors) = Door::make(&place).await.and_then(Made::open).expect("a door");
        let mut old = Predecessor::find(&place).await.expect("it can be asked").expect("it is there");
        let ask = Message::Ask { protocol: 2, version: "9".to_owned() };
        send(&mut old.0, &ask).await.expect("sent");
        let said = receive(&mut old.0).await.expect("an answer");
        assert!(matches!(said, Message::Refused { reason } if reason.contains("protocol 1")));
    }

    #[tokio::test(flavor = "local")]
    async fn descriptors_that_there_is_no_room_for_are_told_apart_from_a_predecessor_that_is_gone() {
        let (old, new) = UnixStream::pair().expect("two ends");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let sockets = listen::bind(any, BATCH + 8).expect("a port");
        let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        // To the one who receives it is the same whether it has no room for them or may not have them.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH + 8))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        assert!(beside.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(&old, &[IoSlice::new(b"+")], &mut beside, SendFlags::NOSIGNAL).expect("sent");
        let error = receive_descriptors(&new).await.expect_err("some are missing").to_string();
        assert!(error.contains("raise the limit"), "{error}");
        drop(old);
        let error = receive_descriptors(&new).await.expect_err("nobody is there");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
    }
}
