//! Picking an endpoint.

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::Criterion;
use weir::balance::balancer;
use weir::config::cluster::Balance;

/// The policies. One that is missing here does not compile.
fn name(policy: Balance) -> &'static str {
    match policy {
        Balance::RoundRobin => "round robin",
    }
}

/// Balancers.
pub fn picks(c: &mut Criterion) {
    let mut group = c.benchmark_group("balance");
    for policy in [Balance::RoundRobin] {
        for count in [3, 1000_u16] {
            let endpoints: Vec<_> = (0..count).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
            let balancer = balancer(policy);
            group.bench_function(format!("{}, {count} endpoints", name(policy)), |b| {
                b.iter(|| balancer.pick(black_box(&endpoints)).expect("there are endpoints"));
            });
        }
    }
    group.finish();
}
