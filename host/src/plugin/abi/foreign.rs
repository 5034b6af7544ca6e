//! Foreign functions: what is no part of the contract, but what filters for Envoy call by name. One file for each topic.
//!
//! Each bounds its own work: nothing can interrupt the host while it does it.

mod compression;
mod expression;
mod filter_state;

use std::collections::HashMap;
use std::sync::Arc;

use weir_abi::{DECLARE_PROPERTY, DeclareProperty, SET_FILTER_STATE, Status};

use crate::plugin::abi::foreign::expression::Expressions;
use crate::plugin::abi::memory::Host;
use crate::plugin::abi::{Answer, Len, OutLen, OutPtr, Ptr};
use crate::plugin::grants::Right;
use crate::plugin::stream::Reroute;
use crate::plugin::vm::Vm;

pub use expression::prepare;

/// What foreign functions keep for a plugin.
#[derive(Debug, Default, Clone)]
pub struct Kept {
    expressions: Expressions,
    /// How its own properties are kept, by name.
    declared: HashMap<Box<[u8]>, Declared>,
}

/// How one property is kept.
#[derive(Debug, Clone, Copy)]
struct Declared {
    readonly: bool,
    text: bool,
}

/// Properties that a plugin may declare, and the length of a name.
const MOST_DECLARED: usize = 1024;
const MOST_NAME: usize = 1024;

impl Kept {
    /// Whether a property stays as it is first set.
    pub fn is_readonly(&self, path: &[u8]) -> bool {
        self.declared.get(path).is_some_and(|declared| declared.readonly)
    }

    /// Whether a property is a text to expressions, and not bytes.
    fn is_text(&self, path: &[u8]) -> bool {
        self.declared.get(path).is_some_and(|declared| declared.text)
    }
}

pub fn proxy_call_foreign_function(
    host: &mut Host<'_>,
    name: Ptr,
    name_len: Len,
    argument: Ptr,
    argument_len: Len,
    data: OutPtr,
    data_len: OutLen,
) -> Answer {
    // The guest may pass null for results that it does not want.
    let wanted = data != 0 && data_len != 0;
    if wanted {
        host.check(data, 4)?;
        host.check(data_len, 4)?;
    }
    let ((name, argument), vm) = host.two((name, name_len), (argument, argument_len))?;
    let result = call(vm, name, argument)?;
    if wanted { host.give(&result, data, data_len) } else { Ok(()) }
}

fn call(vm: &mut Vm, name: &[u8], argument: &[u8]) -> Result<Vec<u8>, Status> {
    let none = |()| Vec::new();
    let name = str::from_utf8(name).map_err(|_| Status::NotFound)?;
    if right(name).is_some_and(|right| !vm.may(right, name)) {
        return Err(Status::NotFound);
    }
    match name {
        SET_FILTER_STATE => filter_state::set(vm, argument).map(none),
        DECLARE_PROPERTY => declare(vm, argument).map(none),
        "clear_route_cache" => {
            // Outside of a stream there is nothing to clear.
            if let Ok(context) = vm.stream() {
                context.stream.borrow_mut().reroute = Reroute::Anyhow;
            }
            Ok(Vec::new())
        }
        "compress" => compression::compress(vm, argument),
        "uncompress" => compression::uncompress(vm, argument),
        "expr_create" => expression::create(vm, argument),
        "expr_evaluate" => expression::evaluate(vm, argument),
        "expr_delete" => expression::delete(vm, argument).map(none),
        _ => Err(Status::NotFound),
    }
}

/// What a function needs that not every filter has; a filter without it is told that there is no such function.
fn right(function: &str) -> Option<Right> {
    match function {
        "clear_route_cache" => Some(Right::Route),
        "expr_create" => Some(Right::ExprCreate),
        "expr_evaluate" => Some(Right::ExprEvaluate),
        "expr_delete" => Some(Right::ExprDelete),
        _ => None,
    }
}

/// Declares how one of the plugin's own properties is kept. Once and for all: a second time is refused.
fn declare(vm: &mut Vm, argument: &[u8]) -> Result<(), Status> {
    let declare = DeclareProperty::decode(argument).map_err(|_| Status::BadArgument)?;
    // In Envoy a stream keeps its declarations for itself, and nobody asks for them.
    if vm.stream().is_ok() {
        return Ok(());
    }
    let declared = &mut Arc::make_mut(&mut vm.root_mut()?.kept).declared;
    if declared.contains_key(declare.name.as_bytes()) {
        return Err(Status::BadArgument);
    }
    if declared.len() >= MOST_DECLARED || declare.name.len() > MOST_NAME {
        return Err(Status::InternalFailure);
    }
    let kept = Declared { readonly: declare.readonly, text: declare.text };
    declared.insert(declare.name.as_bytes().into(), kept);
    Ok(())
}
