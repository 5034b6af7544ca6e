//! A snapshot: everything that traffic depends on, immutable, published whole.
//!
//! It is made from a configuration, the plugins that serve, and the snapshot before it: what has not changed
//! (clusters, plugin VMs, sockets) is the same object in both, so that connections and instances live on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::config::cluster::Cluster as ClusterConfig;
use crate::config::filter::{Filter, Plugins};
use crate::config::listener::{Http, Listener as ListenerConfig, Service as ServiceConfig};
use crate::config::problem::{Place, Problem, suggest};
use crate::config::route::{FilterOverride, Route as RouteConfig};
use crate::config::tls::{ListenerTls, Mode};
use crate::http::h1::HeadError;
use crate::net::close::CloseReason;
use crate::net::tls::client::ClientTls;
use crate::net::tls::files::FileProblem;
use crate::net::tls::server::ServerTls;
use crate::plugin::filter::VmSpec;
use crate::plugin::library::{Library, Loaded};
use crate::plugin::services::Services;
use crate::plugin::spec::FilterSpec;
use crate::route::RouteTable;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{Counter, Gauge, Histogram, Registry};
use crate::upstream::cluster::{Cluster, endpoint_name, offer};

/// Everything that traffic depends on.
pub struct Snapshot {
    /// Its number; each is larger than the one before.
    pub id: u64,
    /// The configuration that it was made from.
    pub config: Arc<Config>,
    /// Where traffic comes from.
    pub listeners: Vec<Arc<Listener>>,
    /// Where it goes.
    pub clusters: Vec<Arc<Cluster>>,
    /// The names of the clusters, for plugins.
    pub cluster_names: Arc<BTreeSet<Box<str>>>,
    /// The VMs of all filters.
    pub vms: Vec<Arc<VmSpec>>,
    /// Where the access log goes.
    pub access_log: Option<AccessLog>,
}

/// A listener.
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// The address as it is configured. Together with the name it is what a socket is known by.
    pub address: SocketAddr,
    /// What is done about TLS.
    pub tls: Tls,
    /// The network filters.
    pub filters: Vec<FilterUse>,
    /// What becomes of its connections.
    pub service: Service,
    /// What is counted.
    pub metrics: ListenerMetrics,
}

/// What a listener does about TLS.
pub enum Tls {
    /// Nothing.
    None,
    /// It reads the server name.
    Passthrough,
    /// It decrypts.
    Terminate(Arc<ServerTls>),
}

/// What becomes of a listener's connections.
pub enum Service {
    /// Bytes are relayed to this cluster (by its number), or to the one that a filter chooses.
    Tcp {
        /// The cluster when no filter chooses.
        cluster: Option<usize>,
    },
    /// HTTP.
    Http(HttpService),
}

/// HTTP on a listener.
pub struct HttpService {
    /// The routes.
    pub routes: RouteTable,
    /// The chains; a route has the number of its own. The first is that of requests without a route.
    pub chains: Vec<Vec<FilterUse>>,
    /// Limits.
    pub limits: crate::config::limits::Limits,
}

/// A filter in a chain: where it runs.
#[derive(Clone)]
pub struct FilterUse {
    /// What it is.
    pub spec: Arc<FilterSpec>,
    /// The VM that it lives in.
    pub vm: u64,
    /// Its root context there.
    pub root: u32,
}

/// What is counted of a listener.
#[derive(Debug, Clone)]
pub struct ListenerMetrics {
    /// Connections that were accepted.
    pub accepted: Counter,
    /// Connections that are open.
    pub open: Gauge,
    /// Bytes from downstream.
    pub received: Counter,
    /// Bytes to downstream.
    pub sent: Counter,
    /// Requests that could not be read, by reason.
    pub refused: Vec<(HeadError, Counter)>,
    closed: [Counter; CloseReason::ALL.len()],
    /// Requests by the class of the status that was sent, and those that were cut before one was.
    requests: [Counter; 6],
    durations: Histogram,
}

impl ListenerMetrics {
    fn new(registry: &Registry, listener: &str) -> Self {
        let labels = [("listener", listener)];
        Self {
            accepted: registry.counter("weir_listener_connections_total", "Connections accepted.", &labels),
            open: registry.gauge("weir_listener_connections", "Connections that are open.", &labels),
            received: registry.counter("weir_listener_received_bytes_total", "Bytes from downstream.", &labels),
            sent: registry.counter("weir_listener_sent_bytes_total", "Bytes to downstream.", &labels),
            refused: HeadError::ALL.iter().map(|&error| {
                let labels = [("listener", listener), ("reason", error.as_str())];
                let help = "Requests that could not be read, by reason.";
                (error, registry.counter("weir_http_refused_total", help, &labels))
            }).collect(),
            requests: ["cut", "1xx", "2xx", "3xx", "4xx", "5xx"].map(|code| {
                let labels = [("listener", listener), ("code", code)];
                registry.counter("weir_http_requests_total", "Requests, by class of the status sent.", &labels)
            }),
            durations: registry.histogram("weir_http_request_duration_seconds", "Time from request to end.", &labels),
            closed: CloseReason::ALL.map(|reason| {
                let labels = [("listener", listener), ("reason", reason.as_str())];
                let help = "Connections that Weir closed instead of serving them, by reason.";
                registry.counter("weir_listener_closed_total", help, &labels)
            }),
        }
    }

    /// Counts a request that is over.
    pub fn request(&self, status: Option<u16>, duration: Duration) {
        let class = status.map_or(0, |status| usize::from(status / 100));
        if let Some(counter) = self.requests.get(class) {
            counter.inc();
        }
        self.durations.record(duration);
    }

    /// Counts a request that could not be read.
    pub fn refuse(&self, error: HeadError) {
        if let Some((_, counter)) = self.refused.iter().find(|(known, _)| *known == error) {
            counter.inc();
        }
    }

    /// Connections that were closed for a reason.
    pub fn closed(&self, reason: CloseReason) -> Option<&Counter> {
        CloseReason::ALL.iter().zip(&self.closed).find(|(known, _)| **known == reason).map(|(_, counter)| counter)
    }
}

/// What a snapshot is made with.
pub struct Making<'a> {
    /// The configuration.
    pub config: &'a Arc<Config>,
    /// The versions that serve, by plugin.
    pub plugins: &'a BTreeMap<String, Loaded>,
    /// The plugins that do not, for what is said about them.
    pub library: &'a Library,
    /// The snapshot before.
    pub before: Option<&'a Snapshot>,
    /// What all VMs share.
    pub services: &'a Arc<Services>,
    /// Where the access log goes.
    pub access_log: Option<AccessLog>,
}

/// A snapshot that was made, and what is to be done before it can be published.
pub struct Made {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// VMs that are new: instances are to be started, and each may refuse. With the place of its filter.
    pub new_vms: Vec<(Arc<VmSpec>, Place)>,
    /// What is wrong. A snapshot with problems must not be published.
    pub problems: Vec<Problem>,
}

impl Making<'_> {
    /// Makes a snapshot.
    pub fn run(&self) -> Made {
        let mut maker = Maker { making: self, vms: Vec::new(), new_vms: Vec::new(), problems: Vec::new() };
        let clusters = maker.clusters();
        let cluster_names = Arc::new(clusters.iter().map(|cluster| Box::from(&*cluster.name)).collect());
        let listeners =
            self.config.sections.listeners.iter().map(|listener| maker.listener(listener, &clusters)).collect();
        let Maker { vms, new_vms, problems, .. } = maker;
        let id = self.before.map_or(1, |before| before.id + 1);
        let (config, access_log) = (Arc::clone(self.config), self.access_log.clone());
        let snapshot = Snapshot { id, config, listeners, clusters, cluster_names, vms, access_log };
        Made { snapshot, new_vms, problems }
    }
}

struct Maker<'a> {
    making: &'a Making<'a>,
    vms: Vec<Arc<VmSpec>>,
    new_vms: Vec<(Arc<VmSpec>, Place)>,
    problems: Vec<Problem>,
}

impl Maker<'_> {
    fn problem(&mut self, place: &Place, message: impl Into<String>) {
        self.problems.push(self.making.config.problem(place, message));
    }

    fn clusters(&mut self) -> Vec<Arc<Cluster>> {
        let config = Arc::clone(self.making.config);
        config.sections.clusters.iter().map(|cluster| self.cluster(cluster)).collect()
    }

    /// The cluster of the snapshot before, when it is the same, down to its certificates.
    fn cluster(&mut self, config: &ClusterConfig) -> Arc<Cluster> {
        let before = self.making.before.map(|before| before.clusters.as_slice()).unwrap_or_default();
        let current = |cluster: &Cluster| match (&cluster.tls, &config.tls) {
            (None, None) => true,
            (Some(tls), Some(config_tls)) => tls.is_current(config_tls, offer(config)),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if let Some(same) = before.iter().find(|cluster| cluster.config == *config && current(cluster)) {
            return Arc::clone(same);
        }
        let tls = config.tls.as_ref().map(|tls| ClientTls::new(tls, endpoint_name(config), offer(config)));
        let tls = match tls.transpose() {
            Ok(tls) => tls.map(Arc::new),
            Err(problems) => {
                self.file_problems(problems);
                None
            }
        };
        Arc::new(Cluster::new(config, tls, &self.making.services.registry))
    }

    fn file_problems(&mut self, problems: Vec<FileProblem>) {
        problems.into_iter().for_each(|(place, message)| self.problem(&place, message));
    }

    fn server_tls(&mut self, config: &ListenerConfig, tls: &ListenerTls) -> Tls {
        let http = matches!(config.service, ServiceConfig::Http(_));
        let before = self.making.before.map(|before| before.listeners.as_slice()).unwrap_or_default();
        for listener in before.iter().filter(|listener| *listener.name == *config.name.value) {
            if let Tls::Terminate(known) = &listener.tls {
                if known.is_current(tls, http) {
                    return Tls::Terminate(Arc::clone(known));
                }
            }
        }
        match ServerTls::new(tls, http) {
            Ok(tls) => Tls::Terminate(Arc::new(tls)),
            Err(problems) => {
                self.file_problems(problems);
                Tls::None
            }
        }
    }

    fn listener(&mut self, config: &ListenerConfig, clusters: &[Arc<Cluster>]) -> Arc<Listener> {
        let number = |name: &str| clusters.iter().position(|cluster| &*cluster.name == name);
        let filters = config.filters.iter().filter_map(|filter| self.filter(&config.name, filter, None)).collect();
        let tls = match &config.tls {
            None => Tls::None,
            Some(tls) if tls.mode == Mode::Passthrough => Tls::Passthrough,
            Some(tls) => self.server_tls(config, tls),
        };
        let service = match &config.service {
            ServiceConfig::Tcp { cluster } => {
                Service::Tcp { cluster: cluster.as_ref().and_then(|cluster| number(cluster)) }
            }
            ServiceConfig::Http(http) => Service::Http(self.http(&config.name, http, &number)),
        };
        Arc::new(Listener {
            name: config.name.as_str().into(),
            address: config.address.value,
            tls,
            filters,
            service,
            metrics: ListenerMetrics::new(&self.making.services.registry, &config.name),
        })
    }

    fn http(&mut self, listener: &str, http: &Http, cluster: &dyn Fn(&str) -> Option<usize>) -> HttpService {
        let mut chains = vec![self.chain(listener, http, None)];
        let routes = RouteTable::new(
            &http.routes,
            |route| {
                if route.filters.is_empty() {
                    return 0;
                }
                chains.push(self.chain(listener, http, Some(route)));
                chains.len() - 1
            },
            cluster,
        );
        HttpService { routes, chains, limits: http.limits.clone() }
    }

    /// The chain of a route: the listener's, without what the route switches off.
    fn chain(&mut self, listener: &str, http: &Http, route: Option<&RouteConfig>) -> Vec<FilterUse> {
        let change = |filter: &Filter| route.and_then(|route| route.filters.get(filter.name().as_str()));
        let mut chain = Vec::new();
        for filter in &http.filters {
            match change(filter).map(|change| (&change.value, &change.place)) {
                Some((FilterOverride::Off, _)) => {}
                Some((FilterOverride::Config(config), place)) => {
                    chain.extend(self.filter(listener, filter, Some((config, place))));
                }
                None => chain.extend(self.filter(listener, filter, None)),
            }
        }
        chain
    }

    /// Finds or makes the VM of a filter.
    fn filter(
        &mut self,
        listener: &str,
        filter: &Filter,
        over: Option<(&serde_json::Value, &Place)>,
    ) -> Option<FilterUse> {
        // Without the section there are no plugins, and the configuration has said so.
        let plugins = self.making.config.sections.plugins.as_ref()?;
        let Some(loaded) = self.making.plugins.get(filter.plugin.as_str()) else {
            let message = self.missing_plugin(&filter.plugin, plugins);
            self.problem(&filter.plugin.place, message);
            return None;
        };
        let spec = FilterSpec::new(listener, filter, &plugins.defaults, over.map(|(config, _)| config));
        let same = |vm: &&Arc<VmSpec>| vm.digest == loaded.digest && vm.filters.iter().any(|known| **known == spec);
        let before = self.making.before.map(|before| before.vms.as_slice()).unwrap_or_default();
        let vm = if let Some(known) = self.vms.iter().find(same) {
            Arc::clone(known)
        } else if let Some(known) = before.iter().find(same) {
            self.vms.push(Arc::clone(known));
            Arc::clone(known)
        } else {
            let services = Arc::clone(self.making.services);
            let vm = VmSpec::new(loaded.digest, loaded.module.clone(), vec![Arc::new(spec.clone())], services);
            let own = filter.config.as_ref().map_or(&filter.plugin.place, |config| &config.place);
            self.new_vms.push((Arc::clone(&vm), over.map_or(own, |(_, place)| place).clone()));
            self.vms.push(Arc::clone(&vm));
            vm
        };
        let at = vm.filters.iter().position(|known| **known == spec)?;
        let spec = Arc::clone(vm.filters.get(at)?);
        Some(FilterUse { spec, vm: vm.id, root: u32::try_from(at + 1).ok()? })
    }

    fn missing_plugin(&self, name: &str, plugins: &Plugins) -> String {
        let library = self.making.library;
        let directory = plugins.directory.display();
        match library.plugin(name).and_then(|plugin| plugin.versions().next()) {
            Some(version) => {
                let reason = version.reason.as_deref().unwrap_or("unknown reason");
                format!("plugin `{name}` was refused: {reason}")
            }
            None => {
                let hint = suggest(name, self.making.plugins.keys().map(String::as_str));
                format!("plugin `{name}` is not in {directory}: there is no {name}.wasm{hint}")
            }
        }
    }
}

impl Snapshot {
    /// The same snapshot with other endpoints for one cluster.
    pub fn with_endpoints(&self, cluster: u64, endpoints: &Arc<[SocketAddr]>) -> Self {
        let replace = |known: &Arc<Cluster>| {
            if known.id == cluster { Arc::new(known.with_endpoints(Arc::clone(endpoints))) } else { Arc::clone(known) }
        };
        Self {
            id: self.id + 1,
            config: Arc::clone(&self.config),
            listeners: self.listeners.clone(),
            clusters: self.clusters.iter().map(replace).collect(),
            cluster_names: Arc::clone(&self.cluster_names),
            vms: self.vms.clone(),
            access_log: self.access_log.clone(),
        }
    }

    /// The number of a cluster.
    pub fn cluster_number(&self, name: &str) -> Option<usize> {
        self.clusters.iter().position(|cluster| &*cluster.name == name)
    }
}
