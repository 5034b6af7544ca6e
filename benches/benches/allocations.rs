//! Allocations of one exchange, and what an idle connection holds, by a counting allocator: `cargo bench --package weir-benches --bench allocations`.
//!
//! The whole proxy runs in this process, over real sockets. The client and the upstream are here, too, and allocate nothing
//! for an exchange.

use std::alloc::System;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use weir::app::{self, Origin};
use weir::plugin::code_cache::CodeCache;
use weir::plugin::digest::Digest;
use weir::plugin::engine::PluginEngine;
use weir::plugin::module::Compiler;
use xtask::exchange::{FILTER, exchanges, upstream};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Exchanges before it is counted, and those that are.
const WARM_UP: u32 = 500;
const COUNTED: u32 = 5000;

/// Connections that are held while nothing is said on them any more; a few come before, for what grows with the first.
const IDLE: usize = 1000;

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let plugins = folder.path().join("plugins");
    std::fs::create_dir(&plugins).expect("a folder");
    xtask::guests::build_bench_filter(&plugins).expect("the filter builds");
    compile(&plugins.join("bench-filter.wasm"), &folder.path().join("cache"));
    let cases =
        [("no filter", String::new()), ("bench filter", FILTER.to_owned()), ("three bench filters", three())];
    let ports: Vec<u16> = cases.iter().map(|_| free_port()).collect();
    let upstream = upstream().expect("an upstream");
    let listener = |((_, filters), port): (&(&str, String), &u16)| {
        format!(
            "  - {{ name: l{port}, address: \"127.0.0.1:{port}\", http: {{ filters: [{filters}], \
             routes: [ {{ cluster: up }} ] }} }}\n"
        )
    };
    let listeners: String = cases.iter().zip(&ports).map(listener).collect();
    let config = format!(
        "runtime: {{ workers: 1, takeover_socket: takeover }}\naccess_log: \"off\"\n\
         plugins: {{ directory: plugins, cache: cache }}\nlisteners:\n{listeners}\
         clusters: [ {{ name: up, endpoints: [\"{upstream}\"] }} ]\n"
    );
    let file = folder.path().join("weir.yaml");
    std::fs::write(&file, config).expect("it can be written");
    std::thread::spawn(move || app::run(&file, Origin::default()).expect("it serves"));
    for ((name, _), port) in cases.iter().zip(&ports) {
        let mut client = connect(*port);
        exchanges(&mut client, WARM_UP).expect("answers");
        let region = Region::new(ALLOCATOR);
        exchanges(&mut client, COUNTED).expect("answers");
        let counted = region.change();
        let each = |count: usize| count as f64 / f64::from(COUNTED);
        println!(
            "{name}: {:.2} allocations, {:.2} reallocations and {:.0} bytes for an exchange",
            each(counted.allocations),
            each(counted.reallocations),
            each(counted.bytes_allocated)
        );
    }
    let port = ports.first().copied().unwrap_or_default();
    let _first = idle(port, IDLE / 10);
    let region = Region::new(ALLOCATOR);
    let held = idle(port, IDLE);
    let counted = region.change();
    let each = |count: usize, gone: usize| count.saturating_sub(gone) as f64 / held.len() as f64;
    println!(
        "an idle connection that had an exchange: {:.2} allocations, {:.0} bytes",
        each(counted.allocations, counted.deallocations),
        each(counted.bytes_allocated, counted.bytes_deallocated)
    );
}

/// Connections on each of which an exchange has been.
fn idle(port: u16, count: usize) -> Vec<TcpStream> {
    let open = |_| {
        let mut client = connect(port);
        exchanges(&mut client, 1).expect("an answer");
        client
    };
    (0..count).map(open).collect()
}

/// Puts a plugin's code into the cache: Weir has a child compile it, which would be this program.
fn compile(plugin: &Path, cache: &Path) {
    let wasm = std::fs::read(plugin).expect("it is there");
    let engine = PluginEngine::new().expect("an engine");
    let digest = Digest::of(&wasm);
    let compiler = Compiler::new(engine.engine(), None).expect("a compiler");
    let compiled = compiler.compile(&wasm, &digest).expect("a plugin");
    CodeCache::open(cache).expect("a cache").store(engine.engine(), &digest, compiled.pre.module());
}

fn three() -> String {
    let filter = |name| FILTER.replacen('{', &format!("{{ name: {name}, "), 1);
    ["a", "b", "c"].map(filter).join(", ")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Connects as soon as somebody listens.
fn connect(port: u16) -> TcpStream {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(client) => {
                client.set_nodelay(true).expect("an option");
                return client;
            }
            Err(error) => assert!(Instant::now() < deadline, "nobody listens: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
