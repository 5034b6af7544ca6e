//! The scenarios, by topic.

mod bodies;
mod calls;
mod filters;
mod flow;
mod grpc;
mod headers;
mod life;
mod network;
mod properties;
mod replies;
mod sdk;
mod shared;

use crate::parity::Scenario;

/// All of them.
pub fn all() -> Vec<Scenario> {
    [
        headers::scenarios(),
        bodies::scenarios(),
        flow::scenarios(),
        replies::scenarios(),
        calls::scenarios(),
        grpc::scenarios(),
        shared::scenarios(),
        properties::scenarios(),
        life::scenarios(),
        network::scenarios(),
        filters::scenarios(),
        sdk::scenarios(),
    ]
    .concat()
}
