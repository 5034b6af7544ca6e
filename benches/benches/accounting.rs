//! One call of a filter that does nothing: bare, with the budget and the accounting of the call, and with those of the VM
//! and of the stream. All of it is always on; the differences are what it costs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use wasmtime::{Instance as Bare, Module, Store};
use weir::clock::coarse_millis;
use weir::config::Config;
use weir::config::listener::Service;
use weir::config::metadata::Metadata;
use weir::net::connection::Connection;
use weir::plugin::digest::Digest;
use weir::plugin::engine::PluginEngine;
use weir::plugin::filter::{GrpcEvent, GrpcSender, PluginHost, VmCell, VmHandle, VmSpec};
use weir::plugin::instance::Instance;
use weir::plugin::meter::StreamMeter;
use weir::plugin::module::Compiler;
use weir::plugin::services::Services;
use weir::plugin::spec::{FilterSpec, Surroundings};
use weir::plugin::stream::Stream;
use weir::plugin::vm::{CallAnswer, GrpcOpen, HttpCall};
use weir::telemetry::metrics::Registry;

const GUEST: &str = r#"(module (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "malloc") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0)))"#;

const CONFIG: &str = r#"
listeners: [ { name: web, address: "127.0.0.1:0", http: { routes: [ { respond: { status: 200 } } ],
    filters: [ { plugin: nothing, cpu_per_second: 0s, cpu_per_stream: 0s } ] } } ]
plugins: { directory: plugins }
"#;

/// The limit of a call.
const CPU: Duration = Duration::from_millis(2);

/// A worker that has nothing to do for its plugins.
struct Nobody;

impl PluginHost for Nobody {
    fn http_call(&self, _: HttpCall, _: Box<dyn FnOnce(Option<CallAnswer>)>) {}

    fn grpc(&self, _: GrpcOpen, _: Box<dyn Fn(GrpcEvent)>) -> Box<dyn GrpcSender> {
        unreachable!("the guest asks for nothing")
    }

    fn condemned(&self, _: &Arc<VmSpec>) {}

    fn linger(&self, _: Rc<VmCell>) {}

    fn retire(&self, _: Box<Instance>) {}
}

fn vm(engine: &PluginEngine) -> Arc<VmSpec> {
    let wasm = wat::parse_str(GUEST).expect("a module");
    let digest = Digest::of(&wasm);
    let compiler = Compiler::new(engine.engine(), None).expect("a compiler");
    let module = compiler.compile(&wasm, &digest).expect("a plugin");
    let config = Config::parse(Path::new("weir.yaml"), CONFIG).expect("a configuration").sections;
    let defaults = config.plugins.expect("plugins").defaults;
    let surroundings = Arc::new(Surroundings { node: config.node, metadata: Metadata::default() });
    let Some(Service::Http(http)) = config.listeners.into_iter().next().map(|web| web.service) else {
        panic!("a listener for HTTP");
    };
    let spec = |filter| Arc::new(FilterSpec::new("web", filter, &defaults, None, Arc::clone(&surroundings)));
    let services = Services::new(Registry::new(1), Arc::clone(engine.pulse()));
    VmSpec::new(digest, module, http.filters.iter().map(spec).collect(), services)
}

fn connection() -> Arc<Connection> {
    Arc::new(Connection {
        id: 1,
        listener: "web".into(),
        peer: SocketAddr::from(([127, 0, 0, 1], 1)),
        local: SocketAddr::from(([127, 0, 0, 1], 2)),
        accepted: SystemTime::now(),
        tls: None,
    })
}

fn calls(c: &mut Criterion) {
    let engine = PluginEngine::new().expect("an engine");
    let spec = vm(&engine);
    let start = || spec.start(&Arc::new(BTreeSet::new())).expect("an instance");
    let mut group = c.benchmark_group("call");

    let wasm = wat::parse_str(GUEST).expect("a module");
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

    let vm = VmHandle::new(Arc::clone(&spec), Rc::new(Nobody), Box::new(start()));
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
    group.finish();
}

criterion_group!(benches, calls);
criterion_main!(benches);
