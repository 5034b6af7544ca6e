//! A bed: one plugin, started as a worker's would be, with made-up surroundings.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::LocalRuntime;

use crate::clock::Timers;
use crate::config::filter::Defaults;
use crate::config::metadata::Node;
use crate::plugin::chain::Filter;
use crate::plugin::digest::Digest;
use crate::plugin::engine::PluginEngine;
use crate::plugin::filter::{PluginHost, VmHandle, VmSpec};
use crate::plugin::instance::StartError;
use crate::plugin::library::Loaded;
use crate::plugin::module::Compiler;
use crate::plugin::services::Services;
use crate::plugin::spec::{FilterSpec, Surroundings};
use crate::plugin::watch::Samples;
use crate::telemetry::metrics::Registry;
use crate::testbed::answers::{Answers, Call};
use crate::testbed::case::Use;
use crate::testbed::compare::Left;
use crate::testbed::facts::{Time, default_of};
use crate::testbed::message::Texts;
use crate::testbed::seen::Seen;
use crate::testbed::world::{Idle, World};

/// What compiles plugins and runs their code. One is enough for a process: it takes a great deal of address space.
pub struct Workbench {
    engine: PluginEngine,
    compiler: Compiler,
}

impl Workbench {
    /// A workbench.
    ///
    /// # Errors
    /// When the engine cannot be made.
    pub fn new() -> anyhow::Result<Arc<Self>> {
        let engine = PluginEngine::new()?;
        let compiler = Compiler::new(engine.engine(), None)?;
        Ok(Arc::new(Self { engine, compiler }))
    }

    /// Compiles a plugin.
    ///
    /// # Errors
    /// Why Weir would not load it.
    pub fn load(&self, wasm: &[u8]) -> anyhow::Result<Loaded> {
        let digest = Digest::of(wasm);
        let module = self.compiler.compile(wasm, &digest).context("the plugin is refused")?;
        Ok(Loaded { digest, module, bytes: wasm.into(), signature: None })
    }
}

/// What a bed is made with.
pub struct Setting {
    /// The filter.
    pub filter: Use,
    /// Filters that stand before it in the chain, each of a plugin of its own.
    pub before: Vec<(Use, Loaded)>,
    /// Filters that stand behind it.
    pub behind: Vec<(Use, Loaded)>,
    /// The time of day at which it begins.
    pub time: Time,
    /// What clusters answer. Those that are named here are the ones that there are, besides what the filter is granted.
    pub calls: Vec<Call>,
    /// Shared data that is there at the beginning.
    pub shared_data: Texts,
    /// Where to tell what the filter's calls cost, when somebody wants to know.
    pub watched: Option<Arc<Samples>>,
}

/// Why there is no bed.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    /// The plugin does not start.
    #[error("{error}")]
    Plugin {
        /// Why.
        error: StartError,
        /// What it logged meanwhile.
        log: Vec<String>,
    },
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// A plugin in made-up surroundings.
pub struct Bed {
    runtime: LocalRuntime,
    idle: Arc<Idle>,
    pub(super) stage: Stage,
    /// The engine goes after everything that runs on it.
    _workbench: Arc<Workbench>,
}

/// What the streams of a bed have in common.
pub(super) struct Stage {
    pub(super) timers: Rc<Timers>,
    pub(super) world: Arc<World>,
    pub(super) answers: Rc<Answers>,
    pub(super) services: Arc<Services>,
    /// The chain.
    pub(super) filters: Vec<Rc<Filter>>,
    /// The place of the tested filter in it.
    tested: usize,
    clusters: Arc<BTreeSet<Box<str>>>,
    pub(super) streams: u64,
}

impl Stage {
    /// The filter that is tested.
    fn tested(&self) -> Option<&Rc<Filter>> {
        self.filters.get(self.tested)
    }
}

/// The listener that the filter stands in.
const LISTENER: &str = "test";

impl Bed {
    /// Starts a plugin.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(workbench: &Arc<Workbench>, loaded: &Loaded, setting: Setting) -> Result<Self, NotStarted> {
        let idle = Arc::new(Idle::default());
        let told = Arc::clone(&idle);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .on_thread_park(move || told.about_to_sleep())
            .build_local(Default::default())
            .context("a runtime cannot be made")?;
        let watched = setting.watched.map(|samples| (spec(&setting.filter).name.to_string(), samples));
        let world = Arc::new(World::new(setting.time.0, watched));
        let outside = Arc::clone(&world);
        let services =
            Services::within(Some(outside), Registry::new(0), Arc::clone(workbench.engine.pulse()));
        let scope = services.space(&spec(&setting.filter).data_scope());
        for (key, value) in &setting.shared_data {
            // What does not fit is missed where it is looked for.
            let _ = scope.set(key.as_bytes(), &value.whole(), 0, usize::MAX);
        }
        let tested = setting.before.len();
        let chain =
            setting.before.into_iter().chain([(setting.filter, loaded.clone())]).chain(setting.behind);
        let chain: Vec<(Use, Loaded)> = chain.collect();
        let granted = chain.iter().flat_map(|(filter, _)| &filter.0.grants.clusters);
        let granted = granted.map(|name| name.value.as_str().into());
        let answering = setting.calls.iter().map(|call| call.cluster.value.as_str().into());
        let clusters = Arc::new(granted.chain(answering).collect::<BTreeSet<Box<str>>>());
        let vm = |(filter, loaded): &(Use, Loaded)| {
            VmSpec::new(loaded, vec![Arc::new(spec(filter))], Arc::clone(&services))
        };
        let vms: Vec<Arc<VmSpec>> = chain.iter().map(vm).collect();
        let timers = Rc::new(Timers::standing());
        let answers = Rc::new(Answers::new(&timers));
        setting.calls.into_iter().for_each(|call| answers.plan(call));
        let filters = Vec::new();
        let stage = Stage { timers, world, answers, services, filters, tested, clusters, streams: 0 };
        let mut bed = Self { runtime, idle, stage, _workbench: Arc::clone(workbench) };
        vms.iter().try_for_each(|vm| bed.furnish(vm))?;
        Ok(bed)
    }

    /// Starts the instances of the next filter, and what they asked for meanwhile.
    fn furnish(&mut self, vm: &Arc<VmSpec>) -> Result<(), NotStarted> {
        let Self { runtime, stage, .. } = self;
        let started: Result<Vec<_>, _> =
            (0..vm.instances()).map(|_| vm.start(&stage.clusters).map(Box::new)).collect();
        let is_tested = stage.filters.len() == stage.tested;
        let instances = started.map_err(|error| {
            if !is_tested {
                let name = vm.filters.first().map_or("", |spec| &*spec.plugin);
                return NotStarted::Other(anyhow::anyhow!(
                    "`{name}`, beside the tested filter, does not start: {error}"
                ));
            }
            let log = stage.world.take_lines().iter().map(super::seen::Line::shown).collect();
            NotStarted::Plugin { error, log }
        })?;
        let host: Rc<dyn PluginHost> = Rc::<Answers>::clone(&stage.answers);
        let handle = runtime.block_on(async {
            let handle = VmHandle::new(vm, &host, instances)?;
            handle.run_outgoing();
            Some(handle)
        });
        let handle = handle.context("the plugin has no instance")?;
        let spec = vm.filters.first().context("the plugin has no filter")?;
        stage.filters.push(Rc::new(Filter { spec: Arc::clone(spec), vm: handle, root: 1 }));
        self.settle();
        Ok(())
    }

    /// Plans another answer.
    pub fn answer(&self, call: Call) {
        self.stage.answers.plan(call);
    }

    /// Lets everything happen that needs no time.
    fn settle(&self) {
        let mut asked = false;
        let idle = &self.idle;
        self.runtime.block_on(poll_fn(|cx| {
            if asked && idle.found() {
                return Poll::Ready(());
            }
            asked = true;
            idle.wait(cx.waker());
            Poll::Pending
        }));
    }

    /// Runs `work`; time goes on whenever nothing else is to be done. `None` when there is nothing to wait for.
    pub(super) fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let (idle, stage) = (&self.idle, &self.stage);
        self.runtime.block_on(async {
            let mut work = pin!(work);
            poll_fn(|cx| {
                if let Poll::Ready(done) = work.as_mut().poll(cx) {
                    return Poll::Ready(Some(done));
                }
                if idle.found() {
                    if stage.timers.skip().is_none() {
                        return Poll::Ready(None);
                    }
                    stage.world.set(stage.timers.now());
                }
                idle.wait(cx.waker());
                Poll::Pending
            })
            .await
        })
    }

    /// Lets time go by: timers fire on the way.
    pub fn pass(&self, time: Duration) {
        let timer = self.stage.timers.timer();
        timer.set(time);
        self.run(timer.limit(std::future::pending::<()>()));
        self.settle();
    }

    /// What was seen besides a stream since this was last asked.
    pub fn take_seen(&self) -> Seen {
        let mut seen = Seen::default();
        self.see(&mut seen);
        seen
    }

    pub(super) fn see(&self, seen: &mut Seen) {
        self.settle();
        (seen.calls, seen.unanswered) = self.stage.answers.take();
        seen.log = self.stage.world.take_lines();
        seen.failures = self.stage.world.take_failures();
        self.mend();
    }

    /// New instances in the place of those that failed.
    fn mend(&self) {
        for vm in self.stage.answers.take_condemned() {
            let filter = self.stage.filters.iter().find(|filter| Arc::ptr_eq(filter.vm.spec(), &vm));
            // One that does not start again is missed by the next stream.
            if let Some(filter) = filter
                && let Ok(instance) = vm.start(&self.stage.clusters)
            {
                self.runtime.block_on(async { filter.vm.replace(Box::new(instance)) });
                self.settle();
            }
        }
    }

    /// The shared data of the filter.
    pub fn shared_data(&self, key: &str) -> Option<Vec<u8>> {
        let filter = self.stage.tested()?;
        let (value, _) = self.stage.services.space(&filter.spec.data_scope()).get(key.as_bytes())?;
        Some(value.to_vec())
    }

    /// A metric that the plugin defined, by the name that it gave it: a number, or how many values a histogram has.
    pub fn metric(&self, name: &str) -> Option<i64> {
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
        let exposed: String = "weir_plugin_custom_".chars().chain(name.chars().map(safe)).collect();
        let rendered = self.stage.services.registry.render();
        let value = |suffix: &str| {
            let line = rendered.lines().find_map(|line| {
                let rest = line.strip_prefix(exposed.as_str())?.strip_prefix(suffix)?;
                rest.starts_with('{').then_some(rest)
            })?;
            line.rsplit_once(' ')?.1.parse().ok()
        };
        value("").or_else(|| value("_count"))
    }
}

impl Left for Bed {
    fn shared_data(&self, key: &str) -> Option<Vec<u8>> {
        self.shared_data(key)
    }

    fn metric(&self, name: &str) -> Option<i64> {
        self.metric(name)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // The end of a plugin is an event like others, and needs the runtime.
        let filters = std::mem::take(&mut self.stage.filters);
        self.runtime.block_on(async { drop(filters) });
    }
}

/// What a filter is, with the budgets of a bed: nobody waits here, and time is made up. One call is long enough for a debug
/// build of the host, unless the filter says what it may take.
fn spec(filter: &Use) -> FilterSpec {
    let defaults = Defaults {
        cpu: Duration::from_millis(500),
        cpu_per_second: Duration::ZERO,
        long_calls_per_second: Duration::ZERO,
        cpu_per_stream: Duration::ZERO,
        ..default_of()
    };
    let surroundings = Surroundings { node: default_of::<Node>(), metadata: default_of() };
    FilterSpec::new(LISTENER, &filter.0, &defaults, None, Arc::new(surroundings))
}
