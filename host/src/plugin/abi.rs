//! The host functions: what a guest may call. One file for each topic; the table is in `weir-abi`.
//!
//! A host function either answers with a status or ends the call with a trap. It never re-enters the guest, its
//! allocator excepted, which may log and nothing else while that runs. Guest pointers are checked before the
//! host allocates anything.

mod body;
mod call;
mod entries;
mod foreign;
mod grpc;
mod headers;
mod log;
mod memory;
mod metrics;
mod properties;
mod shared;
mod stream;
mod time;
mod wasi;

use wasmtime::{Caller, ExternType, Linker, ValType};
use weir_abi::{HOST_MODULE, Status, WASI_MODULES, host_functions, wasi_functions};

use crate::plugin::abi::memory::Host;
use crate::plugin::vm::Vm;

pub use call::Calls;
pub use entries::{ALLOCATORS, CALLBACKS, Callbacks, Entries, SHORT_HEADERS};
pub use foreign::Kept;
pub use headers::Weighed;
pub use properties::property;
pub use wasi::{Exited, Wasi, flush};

// What the type names of the tables mean to the host: guest addresses are numbers.
type Int = u32;
type Long = u64;
type Delta = i64;
type Ptr = u32;
type Len = u32;
type OutInt = u32;
type OutLong = u32;
type OutPtr = u32;
type OutLen = u32;

/// Why a host function did not do what was asked: one of two kinds, and no third.
#[derive(Debug)]
pub enum Refusal {
    /// The guest is told.
    Status(Status),
    /// The call ends, and the instance with it.
    Trap(wasmtime::Error),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// The signature of a row of a table.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// The name.
    pub name: &'static str,
    /// The sizes of its parameters in bytes: 4 for an i32, 8 for an i64.
    pub params: &'static [usize],
    /// Whether it returns an i32, or nothing.
    pub returns: bool,
}

impl Function {
    /// Whether an import or an export has this signature.
    pub fn fits(&self, ty: &ExternType) -> bool {
        let ExternType::Func(ty) = ty else { return false };
        let is = |ty: ValType, size: usize| match size {
            8 => matches!(ty, ValType::I64),
            _ => matches!(ty, ValType::I32),
        };
        ty.params().len() == self.params.len()
            && ty.params().zip(self.params).all(|(ty, &size)| is(ty, size))
            && ty.results().len() == usize::from(self.returns)
            && ty.results().all(|ty| is(ty, 4))
    }
}

/// What a host function returns.
pub type Answer = Result<(), Refusal>;

/// Runs a host function, and turns its answer into a status.
fn answer(
    caller: Caller<'_, Vm>,
    name: &str,
    function: impl FnOnce(&mut Host<'_>) -> Answer,
) -> wasmtime::Result<u32> {
    let mut host = Host::new(caller);
    host.called();
    if host.vm().allocating && name != IN_ALLOCATOR {
        // The allocator was called by a host function that is not done yet.
        return Ok(Status::InternalFailure.into());
    }
    match function(&mut host) {
        Ok(()) => Ok(Status::Ok.into()),
        Err(Refusal::Status(status)) => Ok(status.into()),
        Err(Refusal::Trap(trap)) => Err(trap),
    }
}

/// The same on a fiber, where the guest's allocator may give way, too: it is called when the function has done its work.
async fn answer_on_fiber(
    caller: Caller<'_, Vm>,
    name: &str,
    function: impl FnOnce(&mut Host<'_>) -> Answer + Send,
) -> wasmtime::Result<u32> {
    let mut host = Host::on_fiber(caller);
    host.called();
    if host.vm().allocating && name != IN_ALLOCATOR {
        return Ok(Status::InternalFailure.into());
    }
    let answer = match function(&mut host) {
        Ok(()) => host.hand_over().await,
        refused => refused,
    };
    match answer {
        Ok(()) => Ok(Status::Ok.into()),
        Err(Refusal::Status(status)) => Ok(status.into()),
        Err(Refusal::Trap(trap)) => Err(trap),
    }
}

/// The one function that an allocator may call, as in Envoy: it changes nothing, and tells why memory ran out.
const IN_ALLOCATOR: &str = "proxy_log";

macro_rules! link_host {
    ($($(#[$doc:meta])* $topic:ident::$name:ident($($arg:ident: $ty:ident),* $(,)?);)*) => {
        /// Gives the linker every host function of Proxy-Wasm.
        fn link_proxy_wasm(linker: &mut Linker<Vm>) -> wasmtime::Result<()> {
            $(linker.func_wrap(HOST_MODULE, stringify!($name), |caller: Caller<'_, Vm>, $($arg: $ty),*| {
                answer(caller, stringify!($name), |host| $topic::$name(host $(, $arg)*))
            })?;)*
            Ok(())
        }

        /// The same for guests that run on fibers.
        fn link_proxy_wasm_on_fibers(linker: &mut Linker<Vm>) -> wasmtime::Result<()> {
            $(linker.func_wrap_async(HOST_MODULE, stringify!($name), |caller: Caller<'_, Vm>, ($($arg,)*): ($($ty,)*)| {
                Box::new(answer_on_fiber(caller, stringify!($name), move |host| $topic::$name(host $(, $arg)*)))
            })?;)*
            Ok(())
        }

        /// The host functions.
        pub const HOST_FUNCTIONS: &[Function] =
            &[$(Function { name: stringify!($name), params: &[$(size_of::<$ty>()),*], returns: true },)*];
    };
}

host_functions!(link_host);

macro_rules! link_wasi {
    ($($name:ident($($arg:ident: $ty:ident),* $(,)?);)*) => {
        /// Gives the linker every function of WASI preview 1 under one of its module names.
        fn link_wasi(
            linker: &mut Linker<Vm>,
            module: &str,
            host: impl for<'a> Fn(Caller<'a, Vm>) -> Host<'a> + Copy + Send + Sync + 'static,
        ) -> wasmtime::Result<()> {
            $(linker.func_wrap(module, stringify!($name), move |caller: Caller<'_, Vm>, $($arg: $ty),*| -> u32 {
                let mut host = host(caller);
                host.called();
                wasi::$name(&mut host $(, $arg)*).err().map_or(0, Into::into)
            })?;)*
            linker.func_wrap(module, "proc_exit", wasi::proc_exit)?;
            Ok(())
        }

        /// The WASI functions.
        pub const WASI_FUNCTIONS: &[Function] = &[
            $(Function { name: stringify!($name), params: &[$(size_of::<$ty>()),*], returns: true },)*
            Function { name: "proc_exit", params: &[4], returns: false },
        ];
    };
}

wasi_functions!(link_wasi);

/// What compilers import from `env` beside Proxy-Wasm. Emscripten tells of every growth of its memory, and nobody
/// needs to know; older C++ compares threads, of which there is one.
pub const COMPILER_FUNCTIONS: &[Function] = &[
    Function { name: "emscripten_notify_memory_growth", params: &[4], returns: false },
    Function { name: "pthread_equal", params: &[4, 4], returns: true },
];

/// Gives the linker everything that a guest may import.
///
/// # Errors
/// When two functions of the same name are given; a mistake of ours.
#[expect(clippy::redundant_closure, reason = "the function itself is for one lifetime only")]
pub fn link(linker: &mut Linker<Vm>) -> wasmtime::Result<()> {
    foreign::prepare();
    link_proxy_wasm(linker)?;
    link_others(linker, |caller| Host::new(caller))
}

/// Gives the linker the same for guests whose calls run on fibers. No function of WASI calls the guest, so that those
/// need not be asynchronous there either.
///
/// # Errors
/// As for [`link`].
#[expect(clippy::redundant_closure, reason = "the function itself is for one lifetime only")]
pub fn link_on_fibers(linker: &mut Linker<Vm>) -> wasmtime::Result<()> {
    foreign::prepare();
    link_proxy_wasm_on_fibers(linker)?;
    link_others(linker, |caller| Host::on_fiber(caller))
}

fn link_others(
    linker: &mut Linker<Vm>,
    host: impl for<'a> Fn(Caller<'a, Vm>) -> Host<'a> + Copy + Send + Sync + 'static,
) -> wasmtime::Result<()> {
    linker.func_wrap(HOST_MODULE, "emscripten_notify_memory_growth", |_: u32| {})?;
    linker.func_wrap(HOST_MODULE, "pthread_equal", |a: u32, b: u32| u32::from(a == b))?;
    WASI_MODULES.iter().try_for_each(|module| link_wasi(linker, module, host))?;
    wasi::link_unstable(linker)
}
