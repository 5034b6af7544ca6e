//! One endpoint after the other.

use std::cell::Cell;
use std::net::SocketAddr;

use crate::balance::Balancer;

/// One endpoint after the other, from a random one on: workers that begin together do not all begin with the first.
#[derive(Debug)]
pub struct RoundRobin(Cell<usize>);

impl Default for RoundRobin {
    fn default() -> Self {
        Self(Cell::new(fastrand::usize(..)))
    }
}

impl Balancer for RoundRobin {
    fn pick(&self, endpoints: &[SocketAddr]) -> Option<usize> {
        let next = self.0.get();
        self.0.set(next.wrapping_add(1));
        next.checked_rem(endpoints.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_has_its_turn() {
        let endpoints = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let balancer = RoundRobin::default();
        let mut picked: Vec<_> = (0..3).filter_map(|_| balancer.pick(&endpoints)).collect();
        picked.sort_unstable();
        assert_eq!(picked, [0, 1, 2]);
    }
}
