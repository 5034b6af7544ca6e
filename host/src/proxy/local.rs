//! A snapshot as one worker holds it: with its own plugin instances and its own connections.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use crate::plugin::chain::Filter;
use crate::plugin::filter::{PluginHost, VmHandle};
use crate::plugin::instance::Instance;
use crate::proxy::worker::Retired;
use crate::snapshot::{FilterUse, Listener, Service, Snapshot, SocketKey};
use crate::upstream::clients::Clients;
use crate::upstream::local::LocalCluster;

/// A snapshot on one worker.
pub struct Local {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// Its listeners, in its order.
    pub listeners: Vec<Rc<LocalListener>>,
    /// Its clusters, in its order.
    pub clusters: Vec<Rc<LocalCluster>>,
    /// Its VMs, by id.
    pub vms: HashMap<u64, Rc<VmHandle>>,
    /// Dropped after everything else that refers to compiled code.
    _last: Last,
}

/// The last reference to a snapshot on a worker. It goes to where dropping may take its time: freeing compiled
/// code unmaps memory.
struct Last(Option<Arc<Snapshot>>, Sender<Retired>);

/// A listener on one worker.
pub struct LocalListener {
    /// The listener.
    pub listener: Arc<Listener>,
    /// Its network filters.
    pub filters: Rc<[Rc<Filter>]>,
    /// Its HTTP chains, by number.
    pub chains: Vec<Rc<[Rc<Filter>]>>,
}

/// What a worker builds its view of a snapshot with.
pub struct Build<'a> {
    /// The view before, whose VMs and clusters live on where they are the same.
    pub before: Option<&'a Local>,
    /// Instances of the VMs that are new.
    pub instances: HashMap<u64, Vec<Box<Instance>>>,
    /// What plugins need of the worker.
    pub host: Rc<dyn PluginHost>,
    /// The worker's timers.
    pub timers: Rc<crate::clock::Timers>,
    /// Its clients.
    pub clients: Rc<Clients>,
    /// Where snapshots go in the end.
    pub reaper: Sender<Retired>,
}

impl Build<'_> {
    /// Builds the view.
    pub fn run(mut self, snapshot: Arc<Snapshot>) -> Rc<Local> {
        let vms: HashMap<u64, Rc<VmHandle>> =
            snapshot.vms.iter().filter_map(|spec| Some((spec.id, self.vm(spec)?))).collect();
        vms.values().for_each(|vm| vm.set_clusters(&snapshot.cluster_names));
        let clusters = snapshot.clusters.iter().map(|cluster| self.cluster(cluster)).collect();
        let filters = |uses: &[FilterUse]| -> Rc<[Rc<Filter>]> {
            uses.iter().filter_map(|filter| filter_of(filter, &vms)).collect()
        };
        let listeners = snapshot
            .listeners
            .iter()
            .map(|listener| {
                let chains = match &listener.service {
                    Service::Http(http) => http.chains.iter().map(|chain| filters(chain)).collect(),
                    Service::Tcp { .. } => Vec::new(),
                };
                let listener = Arc::clone(listener);
                Rc::new(LocalListener { filters: filters(&listener.filters), chains, listener })
            })
            .collect();
        let last = Last(Some(Arc::clone(&snapshot)), self.reaper);
        Rc::new(Local { snapshot, listeners, clusters, vms, _last: last })
    }

    fn vm(&mut self, spec: &Arc<crate::plugin::filter::VmSpec>) -> Option<Rc<VmHandle>> {
        if let Some(known) = self.before.and_then(|before| before.vms.get(&spec.id)) {
            return Some(Rc::clone(known));
        }
        VmHandle::new(spec, &self.host, self.instances.remove(&spec.id)?)
    }

    fn cluster(&self, cluster: &Arc<crate::upstream::cluster::Cluster>) -> Rc<LocalCluster> {
        let same = |known: &&Rc<LocalCluster>| known.cluster().id == cluster.id;
        match self.before.and_then(|before| before.clusters.iter().find(same)) {
            Some(known) => {
                known.update(cluster);
                Rc::clone(known)
            }
            None => LocalCluster::new(Arc::clone(cluster), &self.timers, &self.clients),
        }
    }
}

fn filter_of(filter: &FilterUse, vms: &HashMap<u64, Rc<VmHandle>>) -> Option<Rc<Filter>> {
    let vm = Rc::clone(vms.get(&filter.vm)?);
    Some(Rc::new(Filter { spec: Arc::clone(&filter.spec), vm, root: filter.root }))
}

impl Local {
    /// The listener that a socket belongs to.
    pub fn listener_at(&self, key: &SocketKey) -> Option<&Rc<LocalListener>> {
        self.listeners.iter().find(|local| local.listener.owns(key))
    }

    /// The listener that a socket belongs to, when it speaks HTTP.
    pub fn http_listener(&self, key: &SocketKey) -> Option<&Rc<LocalListener>> {
        self.listener_at(key).filter(|local| matches!(local.listener.service, Service::Http(_)))
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        if let Some(snapshot) = self.0.take() {
            // Nobody listens any more only when the process ends.
            let _ = self.1.send(Retired::Snapshot(snapshot));
        }
    }
}
