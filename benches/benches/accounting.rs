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
use weir::plugin::fiber::Turns;
use weir::plugin::filter::{Account, GrpcEvent, GrpcSender, PluginHost, VmCell, VmHandle, VmSpec};
use weir::plugin::instance::Instance;
use weir::plugin::library::Loaded;
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
    filters: [ { plugin: nothing, cpu_per_second: 0s, cpu_per_stream: 0s, isolation: ISOLATION } ] } } ]
plugins: { directory: plugins }
"#;

/// The limit of a call.
const CPU: Duration = Duration::from_millis(2);

/// A worker that has nothing to do for its plugins.
#[derive(Default)]
struct Nobody(Turns);

impl PluginHost for Nobody {
    fn http_call(&self, _: HttpCall, _: Account, _: Box<dyn FnOnce(Option<CallAnswer>)>) {}

    fn grpc(&self, _: GrpcOpen, _: Account, _: Box<dyn Fn(GrpcEvent)>) -> Box<dyn GrpcSender> {
        unreachable!("the guest asks for nothing")
    }

    fn condemned(&self, _: &Arc<VmSpec>) {}

    fn stream_failed(&self, _: &Arc<VmSpec>) {}

    fn linger(&self, _: Rc<VmCell>) {}

    fn retire(&self, _: Box<Instance>) {}

    fn turns(&self) -> &Turns {
        &self.0
    }
}

fn vm(engine: &PluginEngine, isolation: &str) -> Arc<VmSpec> {
    let wasm = wat::parse_str(GUEST).expect("a module");
    let digest = Digest::of(&wasm);
    let compiler = Compiler::new(engine.engine(), None).expect("a compiler");
    let module = compiler.compile(&wasm, &digest).expect("a plugin");
    let text = CONFIG.replace("ISOLATION", isolation);
    let config = Config::parse(Path::new("weir.yaml"), &text).expect("a configuration").sections;
    let defaults = config.plugins.expect("plugins").defaults;
    let surroundings = Arc::new(Surroundings { node: config.node, metadata: Metadata::default() });
    let Some(Service::Http(http)) = config.listeners.into_iter().next().map(|web| web.service) else {
        panic!("a listener for HTTP");
    };
    let spec = |filter| Arc::new(FilterSpec::new("web", filter, &defaults, None, Arc::clone(&surroundings)));
    let services = Services::new(Registry::new(1), Arc::clone(engine.pulse()));
    let loaded = Loaded { digest, module, bytes: wasm.into(), signature: None };
    VmSpec::new(&loaded, http.filters.iter().map(spec).collect(), services)
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
    let (spec, of_streams) = (vm(&engine, "worker"), vm(&engine, "stream"));
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

criterion_group!(benches, calls);
criterion_main!(benches);
