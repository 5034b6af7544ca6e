//! `plugins`, and the use of a plugin in a chain.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;

use crate::config::grants::Grants;
use crate::config::section::{choice, section};
use crate::config::value::{Secret, Size, Spanned};

section! {
    /// Where plugins come from, and what each may use.
    pub struct Plugins {
        /// Every `*.wasm` in it is a plugin, named by its file stem. The directory is watched.
        directory: Spanned<PathBuf>,
        /// Weir's private folder for compiled code and for the last good bytes of each plugin. The default is
        /// below `$XDG_CACHE_HOME`, or `~/.cache`, with a name made from the plugin directory.
        cache: Option<PathBuf>,
        /// How long compiling one plugin may take. It is done in a process of its own, which ends then.
        compile_time: Duration = "60s",
        /// Memory that compiling one plugin may take.
        compile_memory: Size = "2GiB",
        /// Functions that one plugin may have.
        compile_functions: u32 = "200000",
        /// Public keys of minisign's, each as its line in base64 or as the path of its `.pub` file. With any, a plugin is loaded
        /// only with a `NAME.wasm.sig` beside `NAME.wasm` that is a signature by one of them. Without, none is asked for.
        require_signature: Option<Spanned<Vec<Spanned<String>>>>,
        /// Memory that all instances of one plugin may have together.
        memory_per_plugin: Size = "2GiB",
        /// Memory that all instances of all plugins may have together.
        memory_total: Size = "4GiB",
        /// Memory that the shared data and the queues of all plugins may take together. Each may always have a little.
        shared_total: Size = "256MiB",
        /// What a filter gets that does not say otherwise.
        defaults: Defaults = "",
    }
}

section! {
    /// The budgets and policies of filters that do not set their own.
    pub struct Defaults {
        /// CPU time for one call into the plugin.
        cpu: Duration = "2ms",
        /// CPU time that a filter may use in a second, on each worker. Beyond that, new streams meet `on_failure`. `0s` is no limit.
        cpu_per_second: Duration = "500ms",
        /// CPU time in a second, on each worker, that calls of a filter may take beyond their first half millisecond: whatever else
        /// the worker has to do waits for such a call. Beyond that, new streams meet `on_failure`. `0s` is no limit.
        long_calls_per_second: Duration = "5ms",
        /// CPU time that a filter may use in a second for one stream. A stream that uses more meets `on_failure`. `0s` is no limit.
        cpu_per_stream: Duration = "250ms",
        /// CPU time for each call at the start of an instance: its start functions, `on_vm_start`, `on_configure`.
        start_cpu: Duration = "5s",
        /// Memory of one instance.
        memory: Size = "64MiB",
        /// What a stream meets when the filter fails: `closed` refuses it, `open` goes on without the filter.
        on_failure: OnFailure = "closed",
        /// How long a filter may hold a message before the stream is ended.
        pause_timeout: Duration = "15s",
        /// Streams that one instance may have at a time.
        streams: u32 = "65536",
        /// HTTP calls that one instance may have under way. Of gRPC calls and streams it may have as many, and 1024.
        calls: u32 = "4096",
        /// Calls of a filter that are on their way to clusters at once, on each worker; those beyond wait for their turn, within
        /// their own timeout. A gRPC stream counts until it has been opened.
        calls_at_once: u32 = "64",
        /// Lines that a filter may log in a second, over all workers. More are dropped and counted.
        log_lines: u32 = "1000",
        /// Bytes that a filter may log in a second, over all workers. More are dropped and counted.
        log_bytes: Size = "1MiB",
    }
}

choice! {
    /// What a stream meets when a filter fails.
    pub enum OnFailure {
        /// It is refused (503, or closed).
        Closed = "closed",
        /// It goes on without the filter.
        Open = "open",
    }
}

choice! {
    /// Which streams share an instance of a filter.
    pub enum Isolation {
        /// All of a worker.
        Worker = "worker",
        /// None: each has a copy of the plugin as it was when it was configured.
        Stream = "stream",
    }
}

choice! {
    /// How a filter's calls share a worker with everybody else's.
    pub enum Scheduling {
        /// One by one, each to its end: for calls of microseconds.
        Inline = "inline",
        /// A call gives way four times in a millisecond: for filters that need milliseconds by right.
        Preemptible = "preemptible",
    }
}

section! {
    /// One use of a plugin in a chain.
    pub struct Filter {
        /// The plugin.
        plugin: Spanned<String>,
        /// The filter's name, by which routes and metrics know it. The default is the plugin's.
        name: Option<Spanned<String>>,
        /// Its configuration: JSON bytes when it is a mapping, as it stands when it is a string.
        config: Option<Spanned<Json>>,
        /// The root id, for modules that hold several plugins.
        root_id: Option<String>,
        /// The VM id: the scope of shared data and queues.
        vm_id: Option<String>,
        /// The configuration of the VM.
        vm_config: Option<Json>,
        /// Environment variables that the plugin sees.
        environment: BTreeMap<String, Secret>,
        /// How its calls share a worker: `inline`, each to its end, or `preemptible`, where a call gives way four times in a
        /// millisecond. The default is `inline`.
        scheduling: Option<Scheduling>,
        /// Instances on each worker that share the streams, where it is `preemptible`: a call that gives way keeps its
        /// instance. The default is 4.
        instances: Option<Spanned<u32>>,
        /// CPU time for one call. The default is `plugins.defaults.cpu`; `100ms` where it is `preemptible`.
        cpu: Option<Duration>,
        /// CPU time in a second, on each worker. The default is `plugins.defaults.cpu_per_second`, or `cpu` when that is more.
        cpu_per_second: Option<Duration>,
        /// CPU time in a second, on each worker, of calls beyond their first half millisecond. The default is
        /// `plugins.defaults.long_calls_per_second`, and no limit where `cpu` is more than 2ms, or it is `preemptible`.
        long_calls_per_second: Option<Duration>,
        /// CPU time in a second for one stream. The default is `plugins.defaults.cpu_per_stream`, or `cpu` when that is more.
        cpu_per_stream: Option<Duration>,
        /// CPU time for each call at the start. The default is `plugins.defaults.start_cpu`.
        start_cpu: Option<Duration>,
        /// Memory of one instance. The default is `plugins.defaults.memory`.
        memory: Option<Size>,
        /// What a stream meets when the filter fails. The default is `plugins.defaults.on_failure`.
        on_failure: Option<OnFailure>,
        /// Which streams share an instance: `worker`, all of a worker; `stream`, none: each has a copy of the plugin as it
        /// was when it was configured.
        isolation: Isolation = "worker",
        /// How long it may hold a message. The default is `plugins.defaults.pause_timeout`.
        pause_timeout: Option<Duration>,
        /// Streams that one instance may have at a time. The default is `plugins.defaults.streams`.
        streams: Option<u32>,
        /// Calls that one instance may have under way. The default is `plugins.defaults.calls`.
        calls: Option<u32>,
        /// Calls that are on their way at once, on each worker. The default is `plugins.defaults.calls_at_once`.
        calls_at_once: Option<u32>,
        /// Lines that it may log in a second. The default is `plugins.defaults.log_lines`.
        log_lines: Option<u32>,
        /// Bytes that it may log in a second. The default is `plugins.defaults.log_bytes`.
        log_bytes: Option<Size>,
        /// Whether it is shown the body while it holds the headers, as in Envoy. The default is false.
        allow_on_headers_stop_iteration: Option<bool>,
        /// What it may use besides what every filter has, and what of that it may not.
        grants: Grants = "",
    }
}

impl Filter {
    /// The name by which routes and metrics know it.
    pub fn name(&self) -> &Spanned<String> {
        self.name.as_ref().unwrap_or(&self.plugin)
    }
}

/// A plugin's configuration as the guest gets it.
pub fn config_bytes(config: Option<&Json>) -> Vec<u8> {
    match config {
        None | Some(Json::Null) => Vec::new(),
        Some(Json::String(text)) => text.clone().into_bytes(),
        Some(json) => json.to_string().into_bytes(),
    }
}
