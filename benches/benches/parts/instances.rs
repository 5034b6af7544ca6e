//! Instances by mode, and modules from the cache.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use criterion::{BatchSize, Criterion};
use weir::plugin::code_cache::CodeCache;
use weir::plugin::digest::Digest;
use weir::plugin::engine::PluginEngine;
use weir::plugin::filter::{PluginHost, VmHandle};
use weir::plugin::module::Compiler;
use weir::plugin::workshop::Workshop;

use crate::made::{Nobody, bench_filter, nothing, vm};

/// Instantiation by mode.
pub fn instantiation(c: &mut Criterion) {
    let engine = PluginEngine::new().expect("an engine");
    let host: Rc<dyn PluginHost> = Rc::new(Nobody::default());
    let mut group = c.benchmark_group("instance");
    for (kind, wasm) in [("filter that does nothing", nothing()), ("bench filter", bench_filter())] {
        // By a builder thread, with everything that the plugin does at its start.
        let spec = vm(&engine, &wasm, "worker");
        group.bench_function(format!("of a worker, {kind}"), |b| {
            b.iter_with_large_drop(|| spec.start(&Arc::new(BTreeSet::new())).expect("room for an instance"));
        });
        // By the worker: a copy of the plugin as it was when it was configured, which ends with its stream.
        let spec = vm(&engine, &wasm, "stream");
        let worker = spec.start(&Arc::new(BTreeSet::new())).expect("an instance");
        let vm = VmHandle::new(&spec, &host, vec![Box::new(worker)]).expect("an instance");
        group.bench_function(format!("of a stream, {kind}, and its end"), |b| {
            b.iter(|| vm.for_stream().expect("room for an instance").expect("an instance of its own"));
        });
    }
    group.finish();
}

/// Module load from cache.
pub fn from_cache(c: &mut Criterion) {
    let engine = PluginEngine::new().expect("an engine");
    let folder = tempfile::tempdir().expect("a folder");
    let cache = CodeCache::open(&folder.path().join("cache")).expect("a cache");
    let mut group = c.benchmark_group("module");
    for (kind, wasm) in [("filter that does nothing", nothing()), ("bench filter", bench_filter())] {
        let digest = Digest::of(&wasm);
        let compiler = Compiler::new(engine.engine(), None).expect("a compiler");
        let compiled = compiler.compile(&wasm, &digest).expect("a plugin");
        cache.store(engine.engine(), &digest, compiled.pre.module());
        assert!(cache.load(engine.engine(), &digest).is_some(), "it is in the cache");
        let workshop = Workshop {
            cache: cache.clone(),
            time: std::time::Duration::from_secs(10),
            memory: 1 << 30,
            functions: 10_000,
        };
        let cached = Compiler::new(engine.engine(), Some(workshop)).expect("a compiler");
        group.bench_function(format!("from the cache, {kind}"), |b| {
            b.iter_batched(
                || (),
                |()| cached.compile(&wasm, &digest).expect("a plugin"),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}
