//! Which clients have connections of their own to endpoints. What ends with a client's connection is found by it, and not by
//! a look at every cluster: most clients have none, and most clusters keep none.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Weak;

use crate::upstream::local::LocalCluster;

/// The clients of one worker that have connections of their own, by the numbers of their connections.
#[derive(Default)]
pub struct Clients(RefCell<HashMap<u64, Vec<Own>>>);

/// A cluster that keeps connections to an endpoint for a client.
type Own = (Weak<LocalCluster>, SocketAddr);

impl Clients {
    /// Takes note that a cluster keeps a connection for a client.
    pub fn note(&self, client: u64, cluster: &Weak<LocalCluster>, endpoint: SocketAddr) {
        let mut clients = self.0.borrow_mut();
        let own = clients.entry(client).or_default();
        if !own.iter().any(|(known, address)| *address == endpoint && known.ptr_eq(cluster)) {
            own.push((Weak::clone(cluster), endpoint));
        }
    }

    /// A client has gone: its own connections are of no use to others. Returns how many places were looked at for them.
    pub fn gone(&self, client: u64) -> usize {
        let Some(own) = self.0.borrow_mut().remove(&client) else { return 0 };
        for (cluster, endpoint) in &own {
            if let Some(cluster) = cluster.upgrade() {
                cluster.client_gone(client, *endpoint);
            }
        }
        own.len()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::rc::Rc;
    use std::sync::{Arc, OnceLock};
    use std::time::{Duration, SystemTime};

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::clock::Timers;
    use crate::config::Config;
    use crate::net::connection::Connection;
    use crate::telemetry::metrics::Registry;
    use crate::upstream::cluster::Cluster;
    use crate::upstream::connection::{Client, HttpConnection, Wanted};

    /// So many clusters that tell of clients, all with this endpoint.
    fn clusters(count: usize, endpoint: SocketAddr, clients: &Rc<Clients>) -> Vec<Rc<LocalCluster>> {
        let one = |n| format!("  - {{ name: c{n}, endpoints: [\"{endpoint}\"], proxy_protocol: v1 }}\n");
        let text = format!("listeners: []\nclusters:\n{}", (0..count).map(one).collect::<String>());
        let config = Config::parse(Path::new("weir.yaml"), &text).expect("a configuration");
        let (registry, timers) = (Registry::new(1), Rc::<Timers>::default());
        let made = |config| Arc::new(Cluster::new(config, None, &registry));
        config.sections.clusters.iter().map(|own| LocalCluster::new(made(own), &timers, clients)).collect()
    }

    fn client(id: u64, address: SocketAddr) -> Client {
        let connection = Connection {
            id,
            listener: "web".into(),
            peer: address,
            local: address,
            accepted: SystemTime::now(),
            tls: None,
            told: OnceLock::new(),
        };
        Client::from(&connection)
    }

    #[tokio::test(flavor = "local")]
    async fn a_client_that_goes_costs_a_look_at_what_it_has_itself_whatever_the_number_of_clusters() {
        let endpoint = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = endpoint.local_addr().expect("an address");
        let clients = Rc::<Clients>::default();
        let clusters = clusters(1_000, address, &clients);
        let mut sockets = Vec::new();
        for id in [1, 2] {
            for again in [false, true] {
                let wanted = Wanted { client: Some(client(id, address)), ..Wanted::default() };
                let connected = clusters[500].connect_http(wanted).await.expect("a connection");
                let HttpConnection::H1(http) = connected else { panic!("HTTP/1") };
                assert_eq!(http.reused, again, "each client keeps its own");
                clusters[500].give_back(http);
            }
            sockets.push(endpoint.accept().await.expect("a connection").0);
        }
        assert_eq!(clients.gone(3), 0, "one that has none");
        assert_eq!(clients.gone(1), 1, "one place of a thousand clusters");
        let mut told = String::new();
        let end = tokio::time::timeout(Duration::from_secs(30), sockets[0].read_to_string(&mut told)).await;
        end.expect("its connection is closed").expect("an end in order");
        assert!(told.starts_with("PROXY TCP4 "), "{told}");
        let wanted = Wanted { client: Some(client(2, address)), ..Wanted::default() };
        let connected = clusters[500].connect_http(wanted).await.expect("a connection");
        assert!(matches!(connected, HttpConnection::H1(http) if http.reused), "the other's is still there");
        assert_eq!(clients.gone(1), 0, "it is forgotten");
    }
}
