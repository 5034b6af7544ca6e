//! What the benches are made with: plugins, a worker that has nothing to do for them, requests.

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use weir::config::Config;
use weir::config::listener::Service;
use weir::config::metadata::Metadata;
use weir::http::message::{Request, Scheme, Version};
use weir::net::connection::Connection;
use weir::plugin::digest::Digest;
use weir::plugin::engine::PluginEngine;
use weir::plugin::fiber::Turns;
use weir::plugin::filter::{Account, GrpcEvent, GrpcSender, PluginHost, VmCell, VmSpec};
use weir::plugin::instance::Instance;
use weir::plugin::library::Loaded;
use weir::plugin::module::Compiler;
use weir::plugin::services::Services;
use weir::plugin::spec::{FilterSpec, Surroundings};
use weir::plugin::vm::{CallAnswer, GrpcOpen, HttpCall};
use weir::telemetry::metrics::Registry;

/// A filter that does nothing.
pub const GUEST: &str = r#"(module (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "malloc") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0)))"#;

// A bench calls it without end, which is more than a share of a second.
const CONFIG: &str = r#"
listeners: [ { name: web, address: "127.0.0.1:0", http: { routes: [ { respond: { status: 200 } } ],
    filters: [ { plugin: nothing, cpu_per_second: 0s, cpu_per_stream: 0s, isolation: ISOLATION } ] } } ]
plugins: { directory: plugins }
"#;

/// The limit of a call.
pub const CPU: Duration = Duration::from_millis(2);

/// The filter that does nothing, in bytes.
pub fn nothing() -> Vec<u8> {
    wat::parse_str(GUEST).expect("a module")
}

/// The filter that is measured beside peers, built from `benches/filter`: it reads three headers, one of which decides,
/// and sets two.
pub fn bench_filter() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    xtask::guests::build_bench_filter(folder.path()).expect("the filter builds");
    std::fs::read(folder.path().join("bench-filter.wasm")).expect("it is there")
}

/// A worker that has nothing to do for its plugins.
#[derive(Default)]
pub struct Nobody(Turns);

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

/// A VM with one filter.
pub fn vm(engine: &PluginEngine, wasm: &[u8], isolation: &str) -> Arc<VmSpec> {
    let digest = Digest::of(wasm);
    let compiler = Compiler::new(engine.engine(), None).expect("a compiler");
    let module = compiler.compile(wasm, &digest).expect("a plugin");
    let text = CONFIG.replace("ISOLATION", isolation);
    let config = Config::parse(Path::new("weir.yaml"), &text).expect("a configuration").sections;
    let defaults = config.plugins.expect("plugins").defaults;
    let surroundings = Arc::new(Surroundings { node: config.node, metadata: Metadata::default() });
    let Some(Service::Http(http)) = config.listeners.into_iter().next().map(|web| web.service) else {
        panic!("a listener for HTTP");
    };
    let spec = |filter| Arc::new(FilterSpec::new("web", filter, &defaults, None, Arc::clone(&surroundings)));
    let services = Services::new(Registry::new(1), Arc::clone(engine.pulse()));
    let loaded = Loaded { digest, module, bytes: wasm.to_vec().into(), signature: None };
    VmSpec::new(&loaded, http.filters.iter().map(spec).collect(), services)
}

/// A connection without TLS.
pub fn connection() -> Arc<Connection> {
    Arc::new(Connection {
        id: 1,
        listener: "web".into(),
        peer: SocketAddr::from(([127, 0, 0, 1], 1)),
        local: SocketAddr::from(([127, 0, 0, 1], 2)),
        accepted: SystemTime::now(),
        tls: None,
        told: OnceLock::new(),
    })
}

/// A request as the load sends it, with the headers that the bench filter reads.
pub fn request(host: &'static str, path: &str) -> Request {
    let header = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let headers =
        [("user-agent", "bench"), ("x-tenant", "payments"), ("x-role", "reader"), ("accept", "*/*")];
    Request {
        method: Method::GET,
        scheme: Scheme::Http,
        authority: HeaderValue::from_static(host),
        path: HeaderValue::try_from(path).expect("a path"),
        version: Version::Http11,
        headers: headers.map(header).into_iter().collect::<HeaderMap>(),
    }
}
