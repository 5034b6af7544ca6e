//! One call of a filter that does nothing: bare, with the budget and the accounting of the call, and with those of the VM
//! and of the stream. All of it is always on; the differences are what it costs.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use wasmtime::{Instance as Bare, Module, Store};
use weir::clock::coarse_millis;
use weir::plugin::engine::PluginEngine;
use weir::plugin::filter::{PluginHost, VmHandle};
use weir::plugin::meter::StreamMeter;
use weir::plugin::stream::Stream;

use crate::made::{CPU, Nobody, connection, nothing, vm};

/// Callback dispatch.
pub fn dispatch(c: &mut Criterion) {
    let engine = PluginEngine::new().expect("an engine");
    let wasm = nothing();
    let (spec, of_streams) = (vm(&engine, &wasm, "worker"), vm(&engine, &wasm, "stream"));
    let start = || spec.start(&Arc::new(BTreeSet::new())).expect("an instance");
    let mut group = c.benchmark_group("call");

    let module = Module::new(engine.engine(), wasm).expect("a module that compiles");
    let mut store = Store::new(engine.engine(), ());
    store.set_epoch_deadline(u64::MAX / 2);
    let bare = Bare::new(&mut store, &module, &[]).expect("an instance");
    let function = bare.get_typed_func::<(u32, u32, u32), u32>(&mut store, "proxy_on_request_headers");
    let function = function.expect("it is exported");
    group.bench_function("bare", |b| {
        b.iter(|| function.call(&mut store, (2, 4, 1)).expect("it does nothing"));
    });

    let mut instance = start();
    let id = instance.create_stream(1, 0, Stream::new(connection()), CPU).expect("room");
    group.bench_function("with the budget and counters of the call", |b| {
        b.iter(|| {
            instance
                .call(id, CPU, |callbacks| &callbacks.proxy_on_request_headers, (id, 4, 1))
                .expect("it does nothing")
        });
    });

    let host: Rc<dyn PluginHost> = Rc::new(Nobody::default());
    let vm = VmHandle::new(&spec, &host, vec![Box::new(start())]).expect("an instance");
    let created = vm.with(0, |instance| instance.create_stream(1, 0, Stream::new(connection()), CPU));
    let id = created.expect("room");
    let mut meter = StreamMeter::new(coarse_millis());
    group.bench_function("with the meters of VM and stream", |b| {
        b.iter(|| {
            let called = vm.with(0, |instance| {
                let action =
                    instance.call(id, CPU, |callbacks| &callbacks.proxy_on_request_headers, (id, 4, 1))?;
                Ok((action, instance.spent()))
            });
            let (action, spent) = called.expect("it does nothing");
            assert!(meter.bill(spent, Duration::ZERO, coarse_millis));
            action
        });
    });

    let worker = of_streams.start(&Arc::new(BTreeSet::new())).expect("an instance");
    let vm = VmHandle::new(&of_streams, &host, vec![Box::new(worker)]).expect("an instance");
    let stream = || Stream::new(connection());
    group.bench_function("in an instance that is made for the stream, and ends with it", |b| {
        b.iter(|| {
            let own = vm.for_stream().expect("room").expect("an instance of its own");
            let called = own.with(0, |instance| {
                let id = instance.create_stream(1, 0, stream(), CPU)?;
                instance.call(id, CPU, |callbacks| &callbacks.proxy_on_request_headers, (id, 4, 1))
            });
            called.expect("it does nothing")
        });
    });
    group.finish();
}
