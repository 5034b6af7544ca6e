//! How a snapshot is made.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::config::Config;
use crate::config::cluster::Cluster as ClusterConfig;
use crate::config::filter::{Filter, Isolation, Plugins};
use crate::config::listener::{Http, Listener as ListenerConfig, Service as ServiceConfig};
use crate::config::metadata::ClusterFacts;
use crate::config::problem::{Place, Problem, suggest};
use crate::config::route::{Action, FilterOverride, Route as RouteConfig};
use crate::config::tls::{ListenerTls, Mode};
use crate::net::tls::client::{self, ClientTls, Endpoints};
use crate::net::tls::files::FileProblem;
use crate::net::tls::renewal::Sources;
use crate::net::tls::server::{self, ServerTls};
use crate::plugin::digest::Digest;
use crate::plugin::filter::VmSpec;
use crate::plugin::grants::Granted;
use crate::plugin::library::{Library, Loaded};
use crate::plugin::services::Services;
use crate::plugin::spec::{FilterSpec, Surroundings};
use crate::plugin::stream::RouteFacts;
use crate::route::{Requests, RouteTable};
use crate::snapshot::{FilterUse, HttpService, Listener, ListenerMetrics, Service, Snapshot, Tls};
use crate::telemetry::access_log::AccessLog;
use crate::upstream::cluster::{Cluster, endpoint_name, offer};

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
        let (vms, new_vms, problems) = (Vec::new(), Vec::new(), Vec::new());
        let sources = self.sources();
        let mut maker = Maker { making: self, sources, groups: HashMap::new(), vms, new_vms, problems };
        maker.group();
        let clusters = maker.clusters();
        let cluster_names = Arc::new(clusters.iter().map(|cluster| Box::from(&*cluster.name)).collect());
        let listeners = self
            .config
            .sections
            .listeners
            .iter()
            .map(|listener| maker.listener(listener, &clusters))
            .collect();
        let Maker { vms, new_vms, problems, .. } = maker;
        let id = self.before.map_or(1, |before| before.id + 1);
        let (config, access_log) = (Arc::clone(self.config), self.access_log.clone());
        let snapshot = Snapshot { id, config, listeners, clusters, cluster_names, vms, access_log };
        Made { snapshot, new_vms, problems }
    }

    /// The files of TLS, with what was good of them in the snapshot before.
    fn sources(&self) -> Sources {
        let mut sources = Sources::default();
        let Some(before) = self.before else { return sources };
        for listener in &before.listeners {
            if let Tls::Terminate(tls) = &listener.tls {
                tls.note(&mut sources.good);
            }
        }
        before.clusters.iter().flat_map(|cluster| &cluster.tls).for_each(|tls| tls.note(&mut sources.good));
        sources
    }
}

struct Maker<'a> {
    making: &'a Making<'a>,
    /// What TLS is made of.
    sources: Sources,
    /// Filters that share a VM, by what they have in common, in the order of the configuration.
    groups: HashMap<Group, Vec<FilterSpec>>,
    vms: Vec<Arc<VmSpec>>,
    new_vms: Vec<(Arc<VmSpec>, Place)>,
    problems: Vec<Problem>,
}

/// What filters that share a VM have in common: the `vm_id`, which is not empty, the VM's configuration, the content,
/// the grants (what one of them may, code that all share may do in its name), who shares an instance, and how calls are
/// scheduled.
type Group = (String, Vec<u8>, Digest, Granted, (Isolation, Option<usize>));

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
        let sources = &mut self.sources;
        let prints = config.tls.as_ref().map(|tls| sources.files.prints(client::files_of(tls)));
        let prints = prints.unwrap_or_default();
        let current = |cluster: &Cluster| match (&cluster.tls, &config.tls) {
            (None, None) => true,
            (Some(tls), Some(config_tls)) => tls.is_current(config_tls, offer(config), &prints),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if let Some(same) = before.iter().find(|cluster| cluster.config == *config && current(cluster)) {
            return Arc::clone(same);
        }
        // Other certificates make no other cluster of it: its connections go on.
        let named = before.iter().find(|cluster| *cluster.name == *config.name.value);
        let known = named.and_then(|cluster| cluster.tls.as_deref());
        let same = named.filter(|cluster| cluster.config == *config);
        let endpoints = Endpoints { name: endpoint_name(config), offer: offer(config) };
        let made = |tls| ClientTls::new(tls, endpoints, known, sources);
        let tls = match config.tls.as_ref().map(made).transpose() {
            Ok(tls) => match (tls.map(Arc::new), same) {
                (Some(tls), Some(same)) => return Arc::new(same.with_tls(tls)),
                (tls, _) => tls,
            },
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
        let same = before.iter().find(|listener| *listener.name == *config.name.value);
        let known = same.and_then(|listener| match &listener.tls {
            Tls::Terminate(known) => Some(known),
            Tls::None | Tls::Passthrough => None,
        });
        let prints = self.sources.files.prints(server::files_of(tls));
        if let Some(known) = known.filter(|known| known.is_current(tls, http, &prints)) {
            return Tls::Terminate(Arc::clone(known));
        }
        match ServerTls::new(tls, http, known.map(|known| &**known), &mut self.sources) {
            Ok(tls) => Tls::Terminate(Arc::new(tls)),
            Err(problems) => {
                self.file_problems(problems);
                Tls::None
            }
        }
    }

    fn listener(&mut self, config: &ListenerConfig, clusters: &[Arc<Cluster>]) -> Arc<Listener> {
        let number = |name: &str| clusters.iter().position(|cluster| &*cluster.name == name);
        let filters =
            config.filters.iter().filter_map(|filter| self.filter(&config.name, filter, None)).collect();
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
        // Connections outlive the snapshot that they came with.
        let before = self.making.before.map(|before| before.listeners.as_slice()).unwrap_or_default();
        let same = before.iter().find(|listener| *listener.name == *config.name.value);
        Arc::new(Listener {
            connections: config.connections.clone(),
            admission: same.map(|listener| Arc::clone(&listener.admission)).unwrap_or_default(),
            name: config.name.as_str().into(),
            address: config.address.value,
            proxy_protocol: config.proxy_protocol.clone(),
            tls,
            filters,
            service,
            metrics: ListenerMetrics::new(&self.making.services.registry, &config.name),
        })
    }

    fn http(&mut self, listener: &str, http: &Http, cluster: &dyn Fn(&str) -> Option<usize>) -> HttpService {
        let registry = &self.making.services.registry;
        let config = self.making.config;
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
            |route| Requests::new(registry, listener, route),
            |route| facts(config, route),
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

    /// Finds the filters that share a VM.
    fn group(&mut self) {
        let making = self.making;
        for listener in &making.config.sections.listeners {
            for filter in &listener.filters {
                self.join_group(&listener.name, filter, None);
            }
            let ServiceConfig::Http(http) = &listener.service else { continue };
            for filter in &http.filters {
                self.join_group(&listener.name, filter, None);
                for route in &http.routes {
                    if let Some(FilterOverride::Config(config)) =
                        route.filters.get(filter.name().as_str()).map(|change| &change.value)
                    {
                        self.join_group(&listener.name, filter, Some(config));
                    }
                }
            }
        }
    }

    fn join_group(&mut self, listener: &str, filter: &Filter, over: Option<&serde_json::Value>) {
        let Some(plugins) = &self.making.config.sections.plugins else { return };
        let Some(loaded) = self.making.plugins.get(filter.plugin.as_str()) else { return };
        let surroundings = self.surroundings(listener);
        let spec = FilterSpec::new(listener, filter, &plugins.defaults, over, surroundings).within(plugins);
        if !spec.vm_id.is_empty() {
            let members = self.groups.entry(group_of(&spec, loaded.digest)).or_default();
            if !members.contains(&spec) {
                members.push(spec);
            }
        }
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
        let over_config = over.map(|(config, _)| config);
        let surroundings = self.surroundings(listener);
        let spec =
            FilterSpec::new(listener, filter, &plugins.defaults, over_config, surroundings).within(plugins);
        let members = self.groups.get(&group_of(&spec, loaded.digest));
        let members = members.cloned().unwrap_or_else(|| vec![spec.clone()]);
        let same = |vm: &&Arc<VmSpec>| {
            let mut pairs = vm.filters.iter().zip(&members);
            vm.digest == loaded.digest
                && vm.filters.len() == members.len()
                && pairs.all(|(known, wanted)| **known == *wanted)
        };
        let before = self.making.before.map(|before| before.vms.as_slice()).unwrap_or_default();
        let vm = if let Some(known) = self.vms.iter().find(same) {
            Arc::clone(known)
        } else if let Some(known) = before.iter().find(same) {
            self.vms.push(Arc::clone(known));
            Arc::clone(known)
        } else {
            let services = Arc::clone(self.making.services);
            let filters = members.iter().cloned().map(Arc::new).collect();
            let vm = VmSpec::new(loaded, filters, services);
            let own = filter.config.as_ref().map_or(&filter.plugin.place, |config| &config.place);
            self.new_vms.push((Arc::clone(&vm), over.map_or(own, |(_, place)| place).clone()));
            self.vms.push(Arc::clone(&vm));
            vm
        };
        let at = vm.filters.iter().position(|known| **known == spec)?;
        let spec = Arc::clone(vm.filters.get(at)?);
        Some(FilterUse { spec, vm: vm.id, root: u32::try_from(at + 1).ok()? })
    }

    /// What the filters of a listener are told of where they are.
    fn surroundings(&self, listener: &str) -> Arc<Surroundings> {
        let sections = &self.making.config.sections;
        let listener = sections.listeners.iter().find(|known| *known.name.value == *listener);
        let metadata = listener.map(|listener| listener.metadata.clone()).unwrap_or_default();
        Arc::new(Surroundings { node: sections.node.clone(), metadata })
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

fn group_of(spec: &FilterSpec, digest: Digest) -> Group {
    let how = (spec.isolation, spec.pool);
    (spec.vm_id.clone(), spec.vm_config.clone(), digest, spec.grants.clone(), how)
}

/// What a route says of itself to plugins.
fn facts(config: &Config, route: &RouteConfig) -> RouteFacts {
    let cluster = match &route.action {
        Action::Forward { clusters, .. } => match clusters.as_slice() {
            [only] => config.sections.clusters.iter().find(|cluster| cluster.name.value == only.name.value),
            _ => None,
        },
        Action::Redirect(_) | Action::Respond { .. } => None,
    };
    let cluster = cluster.map(|cluster| {
        Arc::new(ClusterFacts { name: cluster.name.as_str().into(), metadata: cluster.metadata.clone() })
    });
    RouteFacts { metadata: route.written.metadata.clone(), cluster, ..RouteFacts::default() }
}
