//! One exchange through the filters of a chain: they are begun, shown the headers of request and response, and ended.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use criterion::{BatchSize, Criterion};
use http::StatusCode;
use weir::clock::Timers;
use weir::http::message::Response;
use weir::plugin::chain::{Chain, Filter, Half};
use weir::plugin::engine::PluginEngine;
use weir::plugin::filter::{PluginHost, VmHandle, VmSpec};
use weir::plugin::stream::{SharedStream, Stream};

use crate::made::{Nobody, bench_filter, connection, nothing, request, vm};

/// A filter on a worker of its own kind, in a VM of its own.
fn filter(spec: &Arc<VmSpec>, host: &Rc<dyn PluginHost>) -> Rc<Filter> {
    let instance = Box::new(spec.start(&Arc::new(BTreeSet::new())).expect("an instance"));
    let vm = VmHandle::new(spec, host, vec![instance]).expect("an instance");
    Rc::new(Filter { spec: Arc::clone(&spec.filters[0]), vm, root: 1 })
}

fn stream() -> SharedStream {
    let stream = Stream::new(connection());
    {
        let mut stream = stream.borrow_mut();
        stream.request = Some(request("example.com", "/"));
        stream.response = Some(Response::new(StatusCode::OK));
    }
    stream
}

/// Chains of filters.
pub fn filters(c: &mut Criterion) {
    let engine = PluginEngine::new().expect("an engine");
    let host: Rc<dyn PluginHost> = Rc::new(Nobody::default());
    let timers = Rc::<Timers>::default();
    let mut group = c.benchmark_group("chain");
    let through = |filters: &[Rc<Filter>], stream: &SharedStream| {
        let (mut chain, begun) = Chain::begin(filters.iter().cloned(), stream, &timers);
        begun.expect("every filter begins");
        let cx = Context::from_waker(Waker::noop());
        for half in [Half::Received, Half::Answered] {
            let Poll::Ready(Ok(())) = chain.poll_headers(half, true, &cx) else {
                panic!("the filters let everything go on")
            };
        }
        chain.finish();
    };
    group.bench_function("no filter", |b| {
        b.iter_batched_ref(stream, |stream| through(&[], stream), BatchSize::SmallInput);
    });
    let wasm = [("filters that do nothing", nothing()), ("bench filters", bench_filter())];
    for (kind, wasm) in &wasm {
        for isolation in ["worker", "stream"] {
            let spec = vm(&engine, wasm, isolation);
            for count in [1, 3, 10] {
                let filters: Vec<_> = (0..count).map(|_| filter(&spec, &host)).collect();
                let once = stream();
                through(&filters, &once);
                let sets = once
                    .borrow()
                    .request
                    .as_ref()
                    .expect("a request")
                    .headers
                    .contains_key("x-checked-agent");
                assert_eq!(sets, *kind == "bench filters", "the filter does its work");
                group.bench_function(format!("{count} {kind}, isolation: {isolation}"), |b| {
                    b.iter_batched_ref(stream, |stream| through(&filters, stream), BatchSize::SmallInput);
                });
            }
        }
    }
    group.finish();
}
