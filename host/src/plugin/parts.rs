//! What the instances of one VM have in common, looked up once: an instance that is made for a stream takes no lock and
//! asks nobody.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use weir_abi::Version;

use crate::plugin::abi::{Calls, Kept, Wasi, Weighed};
use crate::plugin::budget::{Budget, Limiter, LongCalls};
use crate::plugin::grants::Denials;
use crate::plugin::instance::StartError;
use crate::plugin::quotas::{Pools, Refusals, Share};
use crate::plugin::services::{Services, Usage};
use crate::plugin::space::Space;
use crate::plugin::spec::FilterSpec;
use crate::plugin::vm::{Grpc, Root, Vm};

/// What each instance of a VM is given.
pub struct Parts {
    members: Vec<Member>,
    services: Arc<Services>,
    /// The scope of shared data and queues.
    scope: Arc<str>,
    space: Arc<Space>,
    /// What the instances draw from.
    pools: Pools,
    /// Memory of one instance, in bytes.
    memory: usize,
    environment: Vec<(String, String)>,
}

/// A filter that lives in the VM.
struct Member {
    spec: Arc<FilterSpec>,
    usage: Arc<Usage>,
    refusals: Arc<Refusals>,
    denials: Arc<Denials>,
}

impl Parts {
    /// The parts of a VM of these filters. `None` when there are none.
    pub fn new(filters: &[Arc<FilterSpec>], usages: &[Arc<Usage>], services: &Arc<Services>) -> Option<Self> {
        let member = |(spec, usage): (&Arc<FilterSpec>, &Arc<Usage>)| Member {
            spec: Arc::clone(spec),
            usage: Arc::clone(usage),
            refusals: services.refusals(&spec.plugin, &spec.name),
            denials: services.denials(&spec.plugin, &spec.name),
        };
        let first = filters.first()?;
        let scope: Arc<str> = first.data_scope().into();
        Some(Self {
            members: filters.iter().zip(usages).map(member).collect(),
            services: Arc::clone(services),
            space: services.space(&scope),
            scope,
            pools: services.pools(first),
            memory: filters.iter().map(|spec| spec.memory).max().unwrap_or_default(),
            environment: filters.iter().flat_map(|spec| spec.environment.iter().cloned()).collect(),
        })
    }

    /// The filters.
    pub fn filters(&self) -> impl Iterator<Item = &Arc<FilterSpec>> {
        self.members.iter().map(|member| &member.spec)
    }

    /// What all VMs share.
    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// The data of a new instance. Root contexts are numbered from 1.
    ///
    /// # Errors
    /// When the plugin has as many instances as it may.
    pub fn vm(&self, version: Version, clusters: &Arc<BTreeSet<Box<str>>>) -> Result<Vm, StartError> {
        let no_room = || StartError::NoRoom("it has no filter".to_owned());
        let first = self.members.first().ok_or_else(no_room)?;
        let share = Share::new(&self.pools, &first.spec).map_err(|quota| {
            first.refusals.refuse(quota);
            StartError::Quota(quota.as_str())
        })?;
        let roots: Vec<_> = (1..).zip(&self.members).map(|(id, member)| member.root(id)).collect();
        let watch = self.services.outside.as_ref().and_then(|outside| outside.watch(&first.spec.name));
        Ok(Vm {
            memory: None,
            allocator: None,
            offers_room: false,
            allocating: false,
            version,
            budget: Budget::default(),
            spent: 0,
            carried: 0,
            long: LongCalls::default(),
            limiter: Limiter::new(self.memory, share, Arc::clone(&first.refusals)),
            wasi: Wasi::new(&self.environment),
            last_id: roots.last().map_or(0, |root| root.id),
            roots,
            streams: HashMap::default(),
            fiber: None,
            effective: 0,
            weighed: Weighed::default(),
            outbox: Vec::new(),
            last_token: 0,
            last_error: None,
            services: Arc::clone(&self.services),
            space: Arc::clone(&self.space),
            scope: Arc::clone(&self.scope),
            clusters: Arc::clone(clusters),
            watch: watch.map(Box::new),
            metrics: Arc::default(),
        })
    }
}

impl Member {
    fn root(&self, id: u32) -> Root {
        Root {
            id,
            spec: Arc::clone(&self.spec),
            usage: Arc::clone(&self.usage),
            refusals: Arc::clone(&self.refusals),
            denials: Arc::clone(&self.denials),
            tick: None,
            ticks_set: 0,
            answer: None,
            calls: Calls::default(),
            grpc: Grpc::default(),
            status: (0, String::new()),
            starting: None,
            pending: false,
            deleted: false,
            kept: Arc::<Kept>::default(),
        }
    }
}
