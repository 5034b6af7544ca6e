//! Who may have one more connection to a listener.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The connections of a listener, on all workers. It outlives snapshots.
#[derive(Debug, Default)]
pub struct Admission {
    open: AtomicU32,
    /// By client, where that is limited. It is locked once for a connection that comes and once when it goes; there are
    /// several so that workers seldom meet.
    clients: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
    hasher: std::hash::RandomState,
}

const SHARDS: usize = 16;

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The listener has as many as it may.
    Listener,
    /// The client has.
    Client,
}

/// A connection that was let in, until it is dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    /// By what the client is known, when it is counted.
    client: Option<IpAddr>,
}

impl Admission {
    /// Lets a connection in, unless there are as many as may be; 0 is no limit.
    ///
    /// # Errors
    /// When there are.
    pub fn admit(self: &Arc<Self>, most: u32) -> Result<Admitted, Full> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let admitted = Admitted { admission: Arc::clone(self), client: None };
        if most > 0 && before >= most { Err(Full::Listener) } else { Ok(admitted) }
    }

    /// Changes the count of a client; who has none is not kept.
    fn with_client<T>(&self, client: IpAddr, change: impl FnOnce(&mut u32) -> T) -> T {
        let shard = self.hasher.hash_one(client) as usize % SHARDS;
        let mut nobody = 0;
        let Some(clients) = self.clients.get(shard) else { return change(&mut nobody) };
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        let count = clients.entry(client).or_default();
        let done = change(count);
        if *count == 0 {
            clients.remove(&client);
        }
        done
    }
}

impl Admitted {
    /// Counts the connection for its client, once that is known, unless the client has as many as it may; 0 is no limit.
    ///
    /// # Errors
    /// When it has.
    pub fn count_for(&mut self, client: IpAddr, most: u32) -> Result<(), Full> {
        if most > 0 && self.client.is_none() {
            let client = network_of(client);
            self.admission.with_client(client, |count| {
                let full = *count >= most;
                *count += u32::from(!full);
                if full { Err(Full::Client) } else { Ok(()) }
            })?;
            self.client = Some(client);
        }
        Ok(())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(client) = self.client {
            self.admission.with_client(client, |count| *count = count.saturating_sub(1));
        }
    }
}

/// By what a client is known: its address, or, since a client of IPv6 has as many addresses as it likes, its network.
fn network_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> IpAddr {
        address.parse().expect("an address")
    }

    #[test]
    fn a_client_has_as_many_connections_as_it_may_and_others_have_theirs() {
        let admission = Arc::new(Admission::default());
        let admit = |address| {
            let mut admitted = admission.admit(5)?;
            admitted.count_for(client(address), 2).map(|()| admitted)
        };
        let one = admit("192.0.2.1").expect("the first");
        let two = admit("::ffff:192.0.2.1").expect("the second");
        assert_eq!(admit("192.0.2.1").expect_err("a third"), Full::Client);
        let three = admit("2001:db8::1").expect("another client");
        let four = admit("2001:db8::2").expect("the same network");
        assert_eq!(admit("2001:db8::3").expect_err("the same network"), Full::Client);
        let five = admit("2001:db8:0:1::3").expect("another network");
        assert_eq!(admit("192.0.2.2").expect_err("there are five"), Full::Listener);
        drop((one, two));
        admit("192.0.2.1").expect("there is room again");
        drop((three, four, five));
        let kept: usize = admission.clients.iter().map(|shard| shard.lock().expect("sound").len()).sum();
        assert_eq!((admission.open.load(Ordering::Relaxed), kept), (0, 0), "nobody is kept");
    }
}
