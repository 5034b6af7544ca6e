//! What a filter may use: its rights, the names that it was granted, and what becomes of a denial.
//!
//! Host functions ask here, each kind in one place. What the guest is told is theirs to say.

use crate::config::filter::Filter;
use crate::config::grants::{Access, ForeignFunction};
use crate::plugin::spec::scope_of;
use crate::plugin::vm::{Root, Vm};
use crate::telemetry::metrics::{Counter, Registry};
use crate::telemetry::seldom::Seldom;

/// What the operator lets a filter use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Granted {
    /// What needs no name.
    pub rights: Rights,
    clusters: Vec<Box<str>>,
    /// Scopes of shared queues besides its own.
    scopes: Vec<Box<str>>,
}

impl Granted {
    /// What a filter's section grants.
    pub fn new(filter: &Filter) -> Self {
        let grants = &filter.grants;
        let mut rights = Rights::default();
        for (access, read, write) in [
            (grants.headers, Right::ReadHeaders, Right::WriteHeaders),
            (grants.body, Right::ReadBody, Right::WriteBody),
            (grants.properties, Right::ReadProperties, Right::WriteProperties),
        ] {
            rights.set(read, access != Access::None);
            rights.set(write, access == Access::Write);
        }
        rights.set(Right::Reply, grants.reply);
        rights.set(Right::Route, grants.route);
        for function in &grants.foreign_functions {
            let right = match function {
                ForeignFunction::SetEnvoyFilterState => Right::FilterState,
                ForeignFunction::ExprCreate => Right::ExprCreate,
                ForeignFunction::ExprEvaluate => Right::ExprEvaluate,
                ForeignFunction::ExprDelete => Right::ExprDelete,
            };
            rights.set(right, true);
        }
        let mut clusters: Vec<Box<str>> = grants.clusters.iter().map(|name| name.as_str().into()).collect();
        clusters.sort_unstable();
        let scopes = grants.shared_data.iter().map(|vm_id| scope_of(vm_id).into()).collect();
        Self { rights, clusters, scopes }
    }
}

/// Something that a filter may do or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Look at headers and trailers.
    ReadHeaders,
    /// Change them.
    WriteHeaders,
    /// Look at bodies and at the bytes of connections.
    ReadBody,
    /// Change them.
    WriteBody,
    /// Look at properties.
    ReadProperties,
    /// Set properties of its own.
    WriteProperties,
    /// Answer, and close.
    Reply,
    /// Choose where a stream goes.
    Route,
    /// Set filter state that is not for routing.
    FilterState,
    /// Make expressions.
    ExprCreate,
    /// Evaluate expressions.
    ExprEvaluate,
    /// Forget expressions.
    ExprDelete,
}

impl Right {
    const fn grant(self) -> Grant {
        match self {
            Self::ReadHeaders | Self::WriteHeaders => Grant::Headers,
            Self::ReadBody | Self::WriteBody => Grant::Body,
            Self::ReadProperties | Self::WriteProperties => Grant::Properties,
            Self::Reply => Grant::Reply,
            Self::Route => Grant::Route,
            Self::FilterState | Self::ExprCreate | Self::ExprEvaluate | Self::ExprDelete => {
                Grant::ForeignFunctions
            }
        }
    }
}

/// A set of rights: one bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rights(u16);

impl Rights {
    /// Whether a right is among them.
    #[inline]
    pub fn has(self, right: Right) -> bool {
        self.0 & (1 << right as u16) != 0
    }

    fn set(&mut self, right: Right, granted: bool) {
        if granted {
            self.0 |= 1 << right as u16;
        }
    }
}

/// The fields of `grants` by which a filter can be denied something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grant {
    Clusters,
    SharedData,
    ForeignFunctions,
    Headers,
    Body,
    Properties,
    Reply,
    Route,
}

impl Grant {
    const ALL: [Self; 8] = [
        Self::Clusters,
        Self::SharedData,
        Self::ForeignFunctions,
        Self::Headers,
        Self::Body,
        Self::Properties,
        Self::Reply,
        Self::Route,
    ];

    /// As the configuration, metrics and the log have it.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Clusters => "clusters",
            Self::SharedData => "shared_data",
            Self::ForeignFunctions => "foreign_functions",
            Self::Headers => "headers",
            Self::Body => "body",
            Self::Properties => "properties",
            Self::Reply => "reply",
            Self::Route => "route",
        }
    }
}

/// The denials of one filter, over all workers and versions.
#[derive(Debug)]
pub struct Denials([(Counter, Seldom); Grant::ALL.len()]);

impl Denials {
    /// The denials of a filter.
    pub fn new(registry: &Registry, plugin: &str, filter: &str) -> Self {
        Self(Grant::ALL.map(|grant| {
            let labels = [("plugin", plugin), ("filter", filter), ("grant", grant.as_str())];
            let help = "What plugins asked for and were not granted.";
            (registry.counter("weir_plugin_denied_total", help, &labels), Seldom::default())
        }))
    }
}

impl Root {
    /// Counts a denial, and tells of it once a second at most.
    fn deny(&self, grant: Grant, what: &str) {
        let Some((counter, seldom)) = self.denials.0.get(grant as usize) else { return };
        counter.inc();
        if seldom.now() {
            let (plugin, filter, grant) = (&*self.spec.plugin, &*self.spec.name, grant.as_str());
            let what: String = what.chars().take(MOST_TOLD).collect();
            tracing::warn!(
                plugin,
                filter,
                grant,
                "denied: a plugin asked for {what:?}, and the filter's `grants` do not have it"
            );
        }
    }
}

/// What is told of a name that a guest made up, in characters.
const MOST_TOLD: usize = 256;

impl Vm {
    /// Whether the filter that host functions act for has a right. A denial is counted and told; `what` says of what.
    /// Where they act for none there is nothing to be denied: everything else is refused there.
    pub fn may(&self, right: Right, what: &str) -> bool {
        let rights = match self.streams.get(&self.effective) {
            Some(context) => context.rights,
            None => match self.root() {
                Ok(root) => root.spec.grants.rights,
                Err(_) => return true,
            },
        };
        if rights.has(right) {
            return true;
        }
        if let Ok(root) = self.root() {
            root.deny(right.grant(), what);
        }
        false
    }

    /// A cluster by the name that a guest gives it, when there is one and the filter may call it.
    pub fn callable(&self, name: &[u8]) -> Option<Box<str>> {
        let known = self.clusters.get(str::from_utf8(name).ok()?)?;
        let root = self.root().ok()?;
        if root.spec.grants.clusters.binary_search(known).is_err() {
            root.deny(Grant::Clusters, known);
            return None;
        }
        Some(known.clone())
    }

    /// Whether the queues of a scope are the filter's own, or granted to it.
    pub fn may_share(&self, scope: &str) -> bool {
        if *self.scope == *scope {
            return true;
        }
        let Ok(root) = self.root() else { return false };
        let granted = root.spec.grants.scopes.iter().any(|known| **known == *scope);
        if !granted {
            root.deny(Grant::SharedData, scope);
        }
        granted
    }
}
