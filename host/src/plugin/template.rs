//! What a plugin is once it is started and configured, to make instances from that need not do it again: its module, with
//! the memory and the globals as they are then (as Wizer makes it), and what the host keeps for it.
//!
//! The pages of that memory are mapped into an instance, and copied where it writes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wasmtime_wizer::Wizer;

use crate::plugin::abi::{Calls, Kept};
use crate::plugin::digest::Digest;
use crate::plugin::instance::{Instance, StartCx, StartError};
use crate::plugin::module::{Compiler, PluginModule};
use crate::plugin::services::GuestMetric;
use crate::plugin::vm::{Grpc, Outgoing, Root, Vm};

/// A configured plugin that instances are made from.
pub struct Template {
    /// Its module.
    pub module: PluginModule,
    roots: Vec<RootState>,
    metrics: Arc<Vec<GuestMetric>>,
    last_token: u32,
    /// What it asked for while it was configured.
    outbox: Vec<Outgoing>,
}

/// What the host keeps for a root context.
struct RootState {
    kept: Arc<Kept>,
    tick: Option<(Duration, u64)>,
    ticks_set: u64,
    calls: Calls,
    grpc: Grpc,
}

/// What an instance that is made from a template is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It is the one of its worker: timers, queues and calls of the root contexts are its own.
    Root,
    /// It is for one stream.
    Stream,
}

impl Template {
    /// Starts and configures a plugin, and keeps what it is then. It takes as long as a start, and compiles the module
    /// twice: never call it on a worker.
    ///
    /// # Errors
    /// When the plugin does not start, or cannot be kept.
    pub fn make(cx: &StartCx<'_>, bytes: &[u8], compiler: &Compiler) -> Result<Self, StartError> {
        let kept = catch_unwind(AssertUnwindSafe(|| make(cx, bytes, compiler)));
        kept.unwrap_or_else(|_| Err(StartError::Template("its form is not understood".to_owned())))
    }

    /// Gives a new instance what the host keeps. Its memory and its globals it has already.
    pub fn fill(&self, vm: &mut Vm, role: Role) {
        vm.metrics = Arc::clone(&self.metrics);
        vm.last_token = self.last_token;
        for (root, state) in vm.roots.iter_mut().zip(&self.roots) {
            root.kept = Arc::clone(&state.kept);
            if role == Role::Root {
                (root.tick, root.ticks_set) = (state.tick, state.ticks_set);
                (root.calls, root.grpc) = (state.calls.clone(), state.grpc.clone());
            }
        }
        if role == Role::Root {
            vm.outbox = self.outbox.iter().filter_map(|asked| asked.again(&mut vm.roots)).collect();
        }
    }
}

fn make(cx: &StartCx<'_>, bytes: &[u8], compiler: &Compiler) -> Result<Template, StartError> {
    let refused = |error: &wasmtime::Error| StartError::Template(error.root_cause().to_string());
    let wizer = Wizer::new();
    let (context, instrumented) = wizer.instrument(bytes).map_err(|error| refused(&error))?;
    let compile = |bytes: &[u8]| {
        let compiled = compiler.compile(bytes, &Digest::of(bytes));
        compiled.map_err(|refusal| StartError::Template(refusal.to_string()))
    };
    let readable = compile(&instrumented)?;
    let mut configured = Instance::start(&StartCx { module: &readable, ..*cx })?;
    let image = at_once(wizer.snapshot(&context, &mut configured));
    let image = image.unwrap_or_else(|| Err(wasmtime::Error::msg("it waits"))).map_err(|e| refused(&e))?;
    let module = compile(&image)?;
    let outbox = configured.take_outgoing();
    let vm = configured.vm();
    let state = |root: &mut Root| RootState {
        kept: Arc::clone(&root.kept),
        tick: root.tick,
        ticks_set: root.ticks_set,
        calls: root.calls.clone(),
        grpc: root.grpc.clone(),
    };
    Ok(Template {
        module,
        roots: vm.roots.iter_mut().map(state).collect(),
        metrics: Arc::clone(&vm.metrics),
        last_token: vm.last_token,
        outbox,
    })
}

/// What a future comes to that never waits; `None` for one that does.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}
