//! The first snapshot: made and tried, and only then are sockets bound, or asked for.

use std::sync::Arc;

use crate::config::problem::{Problem, Problems};
use crate::plugin::digest::Digest;
use crate::reload::prepare::{Prepared, start_all};
use crate::reload::sockets::Bound;
use crate::reload::status::lock;
use crate::reload::{Control, used_plugins};

/// What is to be in force first.
pub struct First {
    prepared: Prepared,
    problems: Vec<Problem>,
}

/// What is to be in force first, with the sockets that it needs.
pub struct Ready {
    prepared: Prepared,
    sockets: Bound,
}

impl First {
    /// Whether anything is wrong with it so far.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

impl Control {
    /// Makes the first snapshot: its plugins are started and configured. A plugin whose file is of no use gives way to
    /// the version that served last, when there is one.
    pub async fn prepare_first(&mut self) -> First {
        for name in used_plugins(&self.config) {
            if lock(&self.status.library).serving(&name).is_none() {
                self.fall_back(&name, None).await;
            }
        }
        let config = Arc::clone(&self.config);
        loop {
            let plugins = lock(&self.status.library).all_serving();
            let mut made = self.make(&config, &plugins, None);
            let vms = std::mem::take(&mut made.new_vms);
            let (instances, failures) = start_all(&made.snapshot, vms, self.workers.len()).await;
            let mut fallen_back = false;
            let mut problems = made.problems;
            for failure in failures {
                let plugin =
                    failure.vm.filters.first().map_or_else(String::new, |spec| spec.plugin.to_string());
                let problem = failure.problem(&config);
                match self.fall_back(&plugin, Some((failure.vm.digest, problem.to_string()))).await {
                    true => fallen_back = true,
                    false => problems.push(problem),
                }
            }
            if !fallen_back {
                return First { prepared: Prepared { snapshot: made.snapshot, instances }, problems };
            }
        }
    }

    /// Binds its addresses. `others_have_them`: a running process does, and was not asked for them, since something is
    /// wrong anyway.
    ///
    /// # Errors
    /// Everything that is in the way.
    pub fn bind_first(&mut self, first: First, others_have_them: bool) -> Result<Ready, Problems> {
        let First { prepared, mut problems } = first;
        let config = Arc::clone(&self.config);
        let mut sockets = Vec::new();
        if !others_have_them {
            match self.bind(&config, &prepared.snapshot) {
                Ok(bound) => sockets = bound,
                Err(unbound) => problems.extend(unbound),
            }
        }
        if problems.is_empty() { Ok(Ready { prepared, sockets }) } else { Err(Problems(problems)) }
    }

    /// Finds the endpoints that have names.
    pub async fn find_endpoints(&mut self, ready: &mut Ready) {
        self.names.follow(&mut ready.prepared.snapshot).await;
    }

    /// Puts it in force.
    pub async fn open(&mut self, ready: Ready) {
        self.sockets.let_go();
        self.publish(ready.prepared, ready.sockets).await;
        self.record();
    }

    /// Puts the version of a plugin that served last in the place of one that is of no use. False when there is
    /// none, or when that is the one.
    async fn fall_back(&self, name: &str, failed: Option<(Digest, String)>) -> bool {
        let Some(good) = self.shelf.last_good(name).await else { return false };
        if failed.as_ref().is_some_and(|(digest, _)| *digest == good.digest) {
            return false;
        }
        let mut library = lock(&self.status.library);
        if let Some((digest, reason)) = failed {
            library.reject(name, Some(digest), reason);
        }
        let why = library.plugin(name).and_then(|plugin| plugin.versions().next()?.reason.clone());
        let why = why.unwrap_or_else(|| "it is not in the directory".to_owned());
        let digest = good.digest;
        tracing::error!(plugin = name, %digest, "the last version that served is used instead of the file: {why}");
        library.adopt(name, good, Some(format!("the last version that served is used: {why}")));
        true
    }
}
