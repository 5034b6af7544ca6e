//! What a VM is made of, and how its instances are made.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::config::filter::Isolation;
use crate::plugin::digest::Digest;
use crate::plugin::instance::{Instance, StartCx, StartError};
use crate::plugin::library::Loaded;
use crate::plugin::module::PluginModule;
use crate::plugin::parts::Parts;
use crate::plugin::services::{Services, Usage};
use crate::plugin::spec::FilterSpec;
use crate::plugin::template::{Role, Template};

/// What a VM is made of: one version of a plugin, and the filters that live in it.
pub struct VmSpec {
    /// A number that no other VM of this process has.
    pub id: u64,
    /// The version.
    pub digest: Digest,
    /// Its module.
    pub module: PluginModule,
    /// Its bytes.
    bytes: Arc<[u8]>,
    /// The filters that live in it, each with a root context of its own.
    pub filters: Vec<Arc<FilterSpec>>,
    /// Where what each of them uses is counted.
    pub usages: Vec<Arc<Usage>>,
    /// What all VMs share.
    pub services: Arc<Services>,
    /// What each instance is given.
    parts: Option<Parts>,
    per_stream: bool,
    /// What instances are copies of, once it is made, with `isolation: stream`.
    template: OnceLock<Template>,
}

impl VmSpec {
    /// A VM of these filters.
    pub fn new(loaded: &Loaded, filters: Vec<Arc<FilterSpec>>, services: Arc<Services>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let digest = loaded.digest;
        let usages =
            filters.iter().map(|spec| Usage::new(&services.registry, digest, spec)).collect::<Vec<_>>();
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            digest,
            module: loaded.module.clone(),
            bytes: Arc::clone(&loaded.bytes),
            per_stream: filters.first().is_some_and(|spec| spec.isolation == Isolation::Stream),
            parts: Parts::new(&filters, &usages, &services),
            filters,
            usages,
            services,
            template: OnceLock::new(),
        })
    }

    /// Whether each stream has an instance of its own.
    #[inline]
    pub fn is_per_stream(&self) -> bool {
        self.per_stream
    }

    /// Whether its calls give way.
    pub fn is_preemptible(&self) -> bool {
        self.filters.first().is_some_and(|spec| spec.pool.is_some())
    }

    /// How many instances it has on each worker.
    pub fn instances(&self) -> usize {
        self.filters.first().and_then(|spec| spec.pool).unwrap_or(1)
    }

    /// Starts an instance of a worker. Never call it on one: it takes as long as the plugin may take.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn start(&self, clusters: &Arc<BTreeSet<Box<str>>>) -> Result<Instance, StartError> {
        let parts = self.parts()?;
        let cx = StartCx { module: &self.module, parts, clusters };
        if !self.is_per_stream() {
            return Instance::start(&cx);
        }
        if self.template.get().is_none() {
            let template = Template::make(&cx, &self.bytes, &self.module.compiler)?;
            // Another thread may have been faster.
            let _ = self.template.set(template);
        }
        Instance::from_template(self.template()?, Role::Root, parts, clusters)
    }

    /// Makes the instance of a stream, on its worker: nothing of the guest runs.
    ///
    /// # Errors
    /// When there is no room.
    pub fn start_for_stream(&self, clusters: &Arc<BTreeSet<Box<str>>>) -> Result<Instance, StartError> {
        Instance::from_template(self.template()?, Role::Stream, self.parts()?, clusters)
    }

    fn parts(&self) -> Result<&Parts, StartError> {
        self.parts.as_ref().ok_or_else(|| StartError::NoRoom("it has no filter".to_owned()))
    }

    fn template(&self) -> Result<&Template, StartError> {
        self.template.get().ok_or_else(|| StartError::Template("it was never started".to_owned()))
    }
}
