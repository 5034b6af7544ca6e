//! What an operator has to know of the certificates of a snapshot: files that are of no use, and what is in force
//! although it is not valid.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::net::tls::renewal::Trouble;
use crate::snapshot::{Snapshot, Tls};

/// Who uses certificates.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A listener.
    Listener(Arc<str>),
    /// A cluster.
    Cluster(Arc<str>),
}

impl Owner {
    /// Which kind it is, and its name.
    pub fn label(&self) -> (&'static str, &str) {
        match self {
            Self::Listener(name) => ("listener", name),
            Self::Cluster(name) => ("cluster", name),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = self.label();
        write!(f, "{kind} `{name}`")
    }
}

/// Something that is wrong with certificates.
#[derive(Debug, Clone)]
pub struct Concern {
    /// Who uses them.
    pub owner: Owner,
    /// What it is, with the file and the cure.
    pub reason: String,
    /// Since when, where that is not said in the reason.
    pub since: Option<SystemTime>,
}

impl Snapshot {
    /// What is wrong with certificates and what goes with them, now.
    pub fn concerns(&self) -> Vec<Concern> {
        let mut all = Vec::new();
        let mut tell = |owner: &Owner, troubles: &[Trouble], faults: Vec<String>| {
            let troubles = troubles.iter().map(|trouble| (trouble.reason.clone(), Some(trouble.since)));
            let faults = faults.into_iter().map(|reason| (reason, None));
            let concern = |(reason, since)| Concern { owner: owner.clone(), reason, since };
            all.extend(troubles.chain(faults).map(concern));
        };
        for listener in &self.listeners {
            if let Tls::Terminate(tls) = &listener.tls {
                tell(&Owner::Listener(Arc::clone(&listener.name)), &tls.troubles, tls.faults());
            }
        }
        for cluster in &self.clusters {
            if let Some(tls) = &cluster.tls {
                tell(&Owner::Cluster(Arc::clone(&cluster.name)), &tls.troubles, tls.faults());
            }
        }
        all
    }
}
