//! Listening sockets that the process did not make: those of the process before it, or of a service manager.
//!
//! What waits in the queue of a socket is lost when the last who has it closes it, so they are handed on as they are,
//! and every one of them is accepted from, however many workers there are.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

/// By what the admin API's socket is known among those that have a name.
pub const ADMIN: &str = "weir:admin";

/// A socket that was given.
#[derive(Debug)]
pub struct Inherited {
    /// The listener that it is for, by name.
    pub name: Option<String>,
    /// The socket. It listens.
    pub socket: TcpListener,
}

/// The sockets that were given, and that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Inheritance(Vec<Inherited>);

impl Inheritance {
    /// The sockets that a service manager has passed (`LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`: `sd_listen_fds(3)`).
    /// It changes the environment: no other thread may run yet.
    ///
    /// # Errors
    /// When one of them is of no use here.
    pub fn from_service_manager() -> io::Result<Self> {
        let own = std::process::id().to_string();
        if std::env::var("LISTEN_PID").ok() != Some(own) {
            // They are for somebody else, of whom the environment is left.
            return Ok(Self::default());
        }
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut passed = ListenFd::from_env();
        let mut all = Vec::new();
        for number in 0..passed.len() {
            let of_no_use = |why: String| {
                let message = format!(
                    "the service manager passes a socket that Weir cannot use: {why}; give `ListenStream=` with an address and a port"
                );
                io::Error::new(io::ErrorKind::InvalidInput, message)
            };
            let socket = passed.take_tcp_listener(number).map_err(|error| of_no_use(error.to_string()))?;
            let Some(socket) = socket else { continue };
            if !socket_acceptconn(&socket)? {
                return Err(of_no_use(format!("{:?} does not listen", socket.local_addr()?)));
            }
            all.push(Inherited { name: names.get(number).map(|name| (*name).to_owned()), socket });
        }
        Self::of(all)
    }

    /// These sockets.
    ///
    /// # Errors
    /// When one of them cannot be used without blocking.
    pub fn of(sockets: Vec<Inherited>) -> io::Result<Self> {
        sockets.iter().try_for_each(|inherited| inherited.socket.set_nonblocking(true))?;
        Ok(Self(sockets))
    }

    /// Adds what another one has.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Takes the sockets of a listener: those that have its address, or its name where the kernel chose the port.
    pub fn take(&mut self, name: &str, address: SocketAddr) -> Vec<TcpListener> {
        let is_meant = |inherited: &mut Inherited| match inherited.socket.local_addr() {
            Ok(bound) if address.port() == 0 => {
                inherited.name.as_deref() == Some(name) && bound.ip() == address.ip()
            }
            Ok(bound) => bound == address,
            Err(_) => false,
        };
        self.0.extract_if(.., is_meant).map(|inherited| inherited.socket).collect()
    }

    /// Where those listen that nobody has taken.
    pub fn left(&self) -> Vec<SocketAddr> {
        self.0.iter().filter_map(|inherited| inherited.socket.local_addr().ok()).collect()
    }
}

/// Gives each of `workers` at least one of these sockets, and each socket to somebody: in the order of the result the
/// workers take turns. Where there are too few, several workers accept from one: what waits there has more hands then.
///
/// # Errors
/// When the process has no descriptors left.
pub fn spread(mut sockets: Vec<TcpListener>, workers: usize) -> io::Result<Vec<TcpListener>> {
    let given = sockets.len();
    for number in given..workers {
        let Some(socket) = sockets.get(number % given.max(1)) else { break };
        sockets.push(socket.try_clone()?);
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::listen;

    fn any() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    fn named(name: &str, sockets: Vec<TcpListener>) -> Vec<Inherited> {
        sockets.into_iter().map(|socket| Inherited { name: Some(name.to_owned()), socket }).collect()
    }

    #[test]
    fn a_listener_takes_what_has_its_address_or_its_name_where_it_has_no_port() {
        let (web, other) = (listen::bind(any(), 2).expect("a port"), listen::bind(any(), 1).expect("a port"));
        let bound = web[0].local_addr().expect("an address");
        let mut given = Inheritance::of(named("web", web)).expect("sockets");
        given.extend(Inheritance::of(named("other", other)).expect("sockets"));
        assert!(given.take("web", SocketAddr::from(([127, 0, 0, 2], 0))).is_empty(), "another address");
        assert!(given.take("mesh", any()).is_empty(), "another name");
        assert_eq!(given.take("renamed", bound).len(), 2, "an address is enough");
        assert_eq!(given.take("web", any()).len(), 0, "they are taken");
        assert_eq!(given.take("other", any()).len(), 1);
        assert!(given.left().is_empty());
    }

    #[test]
    fn every_worker_has_a_socket_and_every_socket_a_worker() {
        let address = |socket: &TcpListener| socket.local_addr().expect("an address");
        for (given, workers, expected) in [(2, 2, 2), (2, 5, 5), (3, 1, 3), (0, 4, 0)] {
            let sockets = if given == 0 { Vec::new() } else { listen::bind(any(), given).expect("a port") };
            let spread = spread(sockets, workers).expect("descriptors");
            assert_eq!(spread.len(), expected, "{given} sockets, {workers} workers");
            assert!(spread.iter().all(|socket| address(socket) == address(&spread[0])));
        }
    }
}
