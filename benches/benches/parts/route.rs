//! Finding the route of a request among few and many.

use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;

use criterion::Criterion;
use weir::config::Config;
use weir::config::listener::Service;
use weir::plugin::stream::RouteFacts;
use weir::route::{Requests, RouteTable};
use weir::telemetry::metrics::Registry;

use crate::made::request;

/// So many routes, a third of each kind: by prefix, by host, by host and method.
fn table(count: usize) -> RouteTable {
    let mut text = String::from("listeners: [{ name: l, address: \"127.0.0.1:0\", http: { routes: [\n");
    for n in 0..count {
        let rule = match n % 3 {
            0 => format!("path_prefix: /service-{n}/"),
            1 => format!("host: h{n}.example.com"),
            _ => format!("host: h{n}.example.org, methods: [GET]"),
        };
        writeln!(text, "{{ match: {{ {rule} }}, cluster: a }},").expect("a string");
    }
    text.push_str("] } }]\nclusters: [{ name: a, endpoints: [] }]\n");
    let config = Config::parse(Path::new("weir.yaml"), &text).expect("a configuration");
    let Some(Service::Http(http)) = config.sections.listeners.first().map(|listener| &listener.service)
    else {
        panic!("a listener for HTTP");
    };
    let registry = Registry::new(1);
    RouteTable::new(
        &http.routes,
        |_| 0,
        |_| Some(0),
        |name| Requests::new(&registry, "l", name),
        |_| RouteFacts::default(),
    )
}

/// Route match.
pub fn matches(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    for count in [10, 1_000, 10_000] {
        let table = table(count);
        // The last of its kind: nothing comes before it in the order of the file that would end the search.
        let last = (count - 1) / 3 * 3;
        let by_prefix = request("other.example.com", &format!("/service-{last}/a/b?c=d"));
        assert!(table.find(&by_prefix).is_some());
        group.bench_function(format!("the last prefix of {count} routes"), |b| {
            b.iter(|| table.find(black_box(&by_prefix)).is_some());
        });
        let host = format!("h{}.example.com", (count - 2) / 3 * 3 + 1);
        let by_host = request(host.leak(), "/a/b");
        assert!(table.find(&by_host).is_some());
        group.bench_function(format!("the last host of {count} routes"), |b| {
            b.iter(|| table.find(black_box(&by_host)).is_some());
        });
        let none = request("other.example.com", "/none");
        assert!(table.find(&none).is_none());
        group.bench_function(format!("none of {count} routes"), |b| {
            b.iter(|| table.find(black_box(&none)).is_some());
        });
    }
    group.finish();
}
