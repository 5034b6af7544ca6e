//! A version that keeps failing right after it was put in force gives way to the one before it.

use std::sync::Arc;

use crate::plugin::digest::Digest;
use crate::plugin::filter::VmSpec;
use crate::reload::Control;
use crate::reload::status::{Status, lock};

/// A version that is to be rolled back.
#[derive(Debug)]
pub struct Failing {
    /// The plugin.
    pub plugin: String,
    /// The version.
    pub digest: Digest,
}

/// Notes that an instance of a VM failed. What is returned has failed too often since it was put in force.
pub fn note_fault(status: &Status, vm: &VmSpec) -> Vec<Failing> {
    let mut library = lock(&status.library);
    let mut plugins: Vec<_> = vm.filters.iter().map(|spec| &*spec.plugin).collect();
    plugins.dedup();
    let failing = plugins.into_iter().filter(|plugin| library.fault(plugin, vm.digest));
    failing.map(|plugin| Failing { plugin: plugin.to_owned(), digest: vm.digest }).collect()
}

impl Control {
    /// Puts the version of a plugin in force that served before one that keeps failing. The file is not looked at again
    /// until it is changed.
    pub async fn roll_back(&mut self, failing: Failing) {
        let Failing { plugin: name, digest } = failing;
        let (before, mut plugins) = {
            let library = lock(&self.status.library);
            // Another version may have been put in force meanwhile.
            let Some(before) = library.before(&name, digest) else { return };
            (before, library.all_serving())
        };
        plugins.insert(name.clone(), before.clone());
        let config = Arc::clone(&self.config);
        let to = before.digest;
        match self.apply(&config, &plugins).await {
            Ok(()) => {
                let reason = lock(&self.status.library).rolled_back(&name, before);
                tracing::error!(plugin = name, %digest, %to, "a new version is rolled back: {reason}");
                self.metrics.plugins_rolled_back.inc();
                self.record();
            }
            Err(problems) => {
                let reasons: Vec<_> = problems.into_iter().map(|problem| problem.to_string()).collect();
                let reasons = reasons.join("; ");
                tracing::error!(plugin = name, %digest, %to, "a version that keeps failing cannot be rolled back: {reasons}");
            }
        }
    }
}
