//! The listening sockets of the process: bound here, or given by the process before it or by a service manager. They are
//! kept beside those of the workers, so that they can be handed over.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::net::hand_over::Lent;
use crate::net::inherit::{ADMIN, Inheritance, spread};
use crate::net::listen;
use crate::snapshot::SocketKey;

/// The sockets of a listener, in the order in which workers take turns.
pub type Bound = Vec<(SocketKey, Vec<TcpListener>)>;

/// The listening sockets of the process.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Given, and not taken yet.
    given: Inheritance,
    /// What is accepted from, with the name of its listener.
    open: HashMap<SocketKey, (String, Vec<TcpListener>)>,
    admin: Option<TcpListener>,
}

impl Sockets {
    /// None yet, but for those that were given.
    pub fn new(given: Inheritance) -> Self {
        Self { given, ..Self::default() }
    }

    /// Adds some that were given.
    pub fn inherit(&mut self, given: Inheritance) {
        self.given.extend(given);
    }

    /// The sockets of a listener: at least one for each worker.
    ///
    /// # Errors
    /// When there are none and none can be bound.
    pub fn bind(&mut self, name: &str, address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
        let given = self.given.take(name, address);
        if given.is_empty() { listen::bind(address, workers) } else { spread(given, workers) }
    }

    /// The socket of the admin API, and another of which it is accepted.
    ///
    /// # Errors
    /// When there is none and none can be bound.
    pub fn bind_admin(&mut self, address: SocketAddr) -> io::Result<Option<TcpListener>> {
        let mut sockets = self.bind(ADMIN, address, 1)?;
        self.admin = sockets.pop();
        self.admin.as_ref().map(TcpListener::try_clone).transpose()
    }

    /// Says which of those that were given no listener has, and lets go of them.
    pub fn let_go(&mut self) {
        for address in self.given.left() {
            tracing::warn!(%address, "a socket was given for which there is no listener; it is not accepted from");
        }
        self.given = Inheritance::default();
    }

    /// Keeps the sockets that workers are about to accept from.
    pub fn keep(&mut self, name: &str, key: &SocketKey, sockets: &[TcpListener]) {
        // Without them they cannot be handed over, and all else goes on.
        let kept = sockets.iter().map(TcpListener::try_clone).collect::<io::Result<Vec<_>>>();
        match kept {
            Ok(kept) => drop(self.open.insert(key.clone(), (name.to_owned(), kept))),
            Err(error) => tracing::warn!(listener = name, %error, "its sockets cannot be handed over"),
        }
    }

    /// Lets go of the sockets of listeners that are gone, before the workers do: who closes a socket last has to take
    /// what waits there.
    pub fn retain(&mut self, is_there: impl Fn(&SocketKey) -> bool) {
        self.open.retain(|key, _| is_there(key));
    }

    /// Lets go of all.
    pub fn close(&mut self) {
        self.open.clear();
        self.admin = None;
    }

    /// All sockets, for the next process.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn lend(&self) -> io::Result<(Vec<Lent>, Vec<TcpListener>)> {
        let (mut lent, mut all) = (Vec::new(), Vec::new());
        let admin = self.admin.as_slice();
        let open = self.open.values().map(|(name, sockets)| (name.as_str(), sockets.as_slice()));
        for (name, sockets) in open.chain([(ADMIN, admin)]) {
            let Some(first) = sockets.first() else { continue };
            lent.push(Lent { name: name.to_owned(), address: first.local_addr()?, count: sockets.len() });
            for socket in sockets {
                all.push(socket.try_clone()?);
            }
        }
        Ok((lent, all))
    }
}
