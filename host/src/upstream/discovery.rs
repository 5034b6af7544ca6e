//! Names to addresses: resolved on the control plane, again when the answer's time to live is over. When the
//! resolver fails, the last answer stays in force.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use crate::config::cluster::{Cluster as ClusterConfig, Endpoint};

/// Resolves the names of clusters.
#[derive(Clone)]
pub struct Discovery {
    resolver: TokioResolver,
}

/// What a cluster's endpoints are now, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The addresses, sorted, each once.
    pub endpoints: Arc<[SocketAddr]>,
    /// When to ask again.
    pub again: Duration,
    /// Names that could not be resolved, and why. Their last answers are among the endpoints.
    pub failures: Vec<(String, String)>,
}

/// The bounds of what a time to live may ask for.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// When to ask again after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

impl Discovery {
    /// A resolver: of these servers, or, without any, of those that the system is configured with.
    ///
    /// # Errors
    /// When the servers cannot be used.
    pub fn new(servers: &[SocketAddr]) -> anyhow::Result<Self> {
        let of_system = if servers.is_empty() { TokioResolver::builder_tokio().ok() } else { None };
        let mut builder = of_system.unwrap_or_else(|| {
            // Without servers of its own, and without a system that has any, names do not resolve; addresses serve.
            let servers = servers.iter().map(|server| {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = server.port();
                    connection
                });
                NameServerConfig::new(server.ip(), true, connections.into())
            });
            let config = ResolverConfig::from_name_servers(servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        });
        let options: &mut ResolverOpts = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // When to ask again is decided here, by the time to live.
        options.cache_size = 0;
        options.timeout = Duration::from_secs(2);
        Ok(Self { resolver: builder.build()? })
    }

    /// Resolves the names of a cluster. `last` holds the answers that there were, and takes the new ones.
    pub async fn resolve(
        &self,
        cluster: &ClusterConfig,
        last: &mut HashMap<String, Vec<IpAddr>>,
    ) -> Resolved {
        let mut endpoints = Vec::new();
        let mut again = LONGEST;
        let mut failures = Vec::new();
        for endpoint in &cluster.endpoints {
            let (name, port) = match endpoint {
                Endpoint::Address(address) => {
                    endpoints.push(*address);
                    continue;
                }
                Endpoint::Dns { name, port } => (name, *port),
            };
            match self.lookup(name).await {
                Ok((addresses, valid)) => {
                    again = again.min(valid.max(SHORTEST));
                    last.insert(name.clone(), addresses);
                }
                Err(reason) => {
                    again = again.min(AFTER_FAILURE);
                    failures.push((name.clone(), reason));
                }
            }
            let addresses = last.get(name).into_iter().flatten();
            endpoints.extend(addresses.map(|&address| SocketAddr::new(address, port)));
        }
        endpoints.sort_unstable();
        endpoints.dedup();
        Resolved { endpoints: endpoints.into(), again, failures }
    }

    async fn lookup(&self, name: &str) -> Result<(Vec<IpAddr>, Duration), String> {
        let answer = self.resolver.lookup_ip(name).await.map_err(|error| error.to_string())?;
        let addresses: Vec<IpAddr> = answer.iter().collect();
        if addresses.is_empty() {
            return Err("the name has no address".to_owned());
        }
        Ok((addresses, answer.valid_until().saturating_duration_since(Instant::now())))
    }
}

/// Whether a cluster has names to resolve.
pub fn has_names(cluster: &ClusterConfig) -> bool {
    cluster.endpoints.iter().any(|endpoint| matches!(endpoint, Endpoint::Dns { .. }))
}
