//! How a call ends an instance, and why one is not started.

use crate::plugin::abi::Exited;
use crate::plugin::services::FaultKind;
use crate::plugin::vm::Vm;

/// A call ended the instance.
#[derive(Debug)]
pub struct Fault {
    /// Why.
    pub kind: FaultKind,
    /// The trap and the backtrace.
    pub message: String,
    /// The status that it exited with, when it did.
    pub(super) exited: Option<u32>,
}

/// An instance could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No slot was free.
    #[error("no room for another instance: {0}")]
    NoRoom(String),
    /// It begins with more memory than the filter may have, in bytes.
    #[error(
        "it begins with more memory than the {0} bytes of the filter's `memory`; raise that, or build it with less"
    )]
    Memory(usize),
    /// What plugins share is used up.
    #[error("no room for another instance: the quota `{0}` is used up; raise it, or use fewer plugins")]
    Quota(&'static str),
    /// It cannot be copied once it is configured.
    #[error(
        "`isolation: stream` needs a copy of the plugin as it is configured, which cannot be made: {0}; use \
         `isolation: worker`, or build the plugin without that"
    )]
    Template(String),
    /// A call during the start ended the instance.
    #[error("{callback} failed: {message}")]
    Fault {
        /// Where it was.
        callback: &'static str,
        /// The trap and the backtrace.
        message: String,
    },
    /// The plugin itself said no.
    #[error("{callback} returned false: the plugin refuses its configuration{}", details(log))]
    Refused {
        /// Which callback.
        callback: &'static str,
        /// What it logged last.
        log: Option<String>,
    },
}

fn details(log: &Option<String>) -> String {
    log.as_ref().map(|log| format!(" (it logged: {log})")).unwrap_or_default()
}

impl Fault {
    /// The host panicked while it served the guest.
    pub fn of_the_host() -> Self {
        let message =
            "the host panicked while it served the plugin; that is a mistake of Weir's, please report it";
        Self { kind: FaultKind::Trap, message: message.to_owned(), exited: None }
    }

    /// What an error of a call means.
    pub(super) fn new(vm: &Vm, error: &wasmtime::Error) -> Self {
        let kind = match () {
            () if vm.budget.overrun => FaultKind::Cpu,
            () if error.downcast_ref::<Exited>().is_some() => FaultKind::Exit,
            () if vm.limiter.refused => FaultKind::Memory,
            () => FaultKind::Trap,
        };
        let message = match kind {
            FaultKind::Cpu => format!("it used up its CPU time: {error:?}"),
            FaultKind::Memory => {
                format!("it was refused more than {} bytes of memory: {error:?}", vm.limiter.limit())
            }
            FaultKind::Exit | FaultKind::Trap => format!("{error:?}"),
        };
        if let Ok(root) = vm.root() {
            root.usage.faults(kind).inc();
        }
        Self { kind, message, exited: error.downcast_ref::<Exited>().map(|exited| exited.0) }
    }

    /// The same, of a call while the instance is started.
    pub(super) fn at_start(self, callback: &'static str) -> StartError {
        StartError::Fault { callback, message: self.message }
    }
}
