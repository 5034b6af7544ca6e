//! Balancing: which endpoint is next. One file for each policy.

mod round_robin;

use std::net::SocketAddr;

use crate::config::cluster::Balance;

pub use round_robin::RoundRobin;

/// A policy, on one worker.
pub trait Balancer {
    /// The place of the endpoint to try next; `None` when there are none.
    fn pick(&self, endpoints: &[SocketAddr]) -> Option<usize>;
}

/// The balancer of a policy.
pub fn balancer(policy: Balance) -> Box<dyn Balancer> {
    match policy {
        Balance::RoundRobin => Box::new(RoundRobin::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every policy owes: a place that is there, and none where there are no endpoints.
    #[test]
    fn every_policy_picks_an_endpoint_that_is_there() {
        for policy in [Balance::RoundRobin] {
            let balancer = balancer(policy);
            assert_eq!(balancer.pick(&[]), None, "{policy:?}");
            for count in 1..5_u16 {
                let endpoints: Vec<_> =
                    (0..count).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
                for _ in 0..10 {
                    let picked = balancer.pick(&endpoints).expect("there are endpoints");
                    assert!(picked < endpoints.len(), "{policy:?}");
                }
            }
        }
    }
}
