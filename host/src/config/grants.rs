//! `grants`: what a filter may use besides what every filter has, and what of that it may not.

use crate::config::section::{choice, section};
use crate::config::value::Spanned;

section! {
    /// What a filter may use. A plugin only asks; what is not here, it does not get.
    pub struct Grants {
        /// The clusters that it may call, by HTTP and gRPC.
        clusters: Vec<Spanned<String>>,
        /// The `vm_id`s, besides its own, whose shared queues it may use.
        shared_data: Vec<String>,
        /// The environment variables of Weir itself that it sees. Its own `environment` needs no grant.
        environment: Vec<String>,
        /// The foreign functions that it may call besides `compress`, `uncompress`, `declare_property`,
        /// `clear_route_cache`, and `set_envoy_filter_state` for routing.
        foreign_functions: Vec<ForeignFunction>,
        /// Headers and trailers. Without them it does not see the properties of request and response either.
        headers: Access = "write",
        /// Bodies, and the bytes of connections.
        body: Access = "write",
        /// Properties. Those that name the plugin itself can always be read.
        properties: Access = "write",
        /// Whether it may answer in the upstream's place, and close what it filters.
        reply: bool = "true",
        /// Whether it may choose where a stream goes: by editing what the route is chosen by, or by naming a cluster.
        route: bool = "true",
    }
}

choice! {
    /// How far a filter may go.
    pub enum Access {
        /// It sees nothing of it.
        None = "none",
        /// It may look.
        Read = "read",
        /// It may look and change.
        Write = "write",
    }
}

choice! {
    /// A foreign function that not every filter has.
    pub enum ForeignFunction {
        /// Keys that do not choose a cluster.
        SetEnvoyFilterState = "set_envoy_filter_state",
        /// An expression is made.
        ExprCreate = "expr_create",
        /// An expression is evaluated.
        ExprEvaluate = "expr_evaluate",
        /// An expression is forgotten.
        ExprDelete = "expr_delete",
    }
}
