//! `expr_create`, `expr_evaluate` and `expr_delete`: expressions of the Common Expression Language over the attributes
//! that are properties too.
//!
//! A guest writes the expression, and the host evaluates it: so what it can cost is bounded before it is kept (its
//! length, its depth, its parts, no loops, patterns compiled once), and how much it may look at while it is evaluated.

mod attributes;
mod shape;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::extractors::This;
use cel::objects::Key;
use cel::parser::{Expression as Tree, Parser};
use cel::{Context, Env, ExecutionError, Value};
use regex::bytes::Regex;
use weir_abi::{Status, encode_pairs};

use crate::clock::thread_cpu_time;
use crate::plugin::abi::foreign::expression::attributes::Attributes;
use crate::plugin::vm::Vm;

/// The expressions of a plugin, by id.
#[derive(Debug, Default, Clone)]
pub struct Expressions {
    next: u32,
    known: HashMap<u32, Arc<Expression>>,
    /// The length of all of them as they were written.
    written: usize,
}

#[derive(Debug)]
struct Expression {
    tree: Tree,
    patterns: Arc<Patterns>,
    written: usize,
}

/// The patterns of an expression, by their text.
type Patterns = HashMap<String, Regex>;

/// Expressions that a plugin may have, and the length of all of them in bytes.
const MOST_EXPRESSIONS: usize = 1024;
const MOST_WRITTEN: usize = 128 << 10;

/// The text that a pattern is tried on, in bytes. The worst of patterns takes some milliseconds for so much.
const MOST_MATCHED: usize = 4 << 10;

/// The functions that expressions have.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// Has the parser build its tables, which it does as it goes: that is not to be in the time of the guest that comes first.
pub fn prepare() {
    let text = "a.b['c'] == 'd' && !(e in [1, -2]) || f.g(h) ? {'i': j + 1.5} : has(k.l) || m.matches('n')";
    // What comes of it is of no interest.
    drop(Expression::parse(text.as_bytes()));
    LazyLock::force(&ENV);
}

pub fn create(vm: &mut Vm, text: &[u8]) -> Result<Vec<u8>, Status> {
    let expressions = &mut Arc::make_mut(&mut vm.root_mut()?.kept).expressions;
    let written = expressions.written + text.len();
    if expressions.known.len() >= MOST_EXPRESSIONS || written > MOST_WRITTEN {
        return Err(Status::InternalFailure);
    }
    let expression = Expression::parse(text).ok_or(Status::BadArgument)?;
    while expressions.known.contains_key(&expressions.next) {
        expressions.next = expressions.next.wrapping_add(1);
    }
    let id = expressions.next;
    expressions.next = id.wrapping_add(1);
    expressions.known.insert(id, Arc::new(expression));
    expressions.written = written;
    Ok(id.to_le_bytes().to_vec())
}

pub fn evaluate(vm: &Vm, argument: &[u8]) -> Result<Vec<u8>, Status> {
    let id = u32::from_le_bytes(argument.try_into().map_err(|_| Status::BadArgument)?);
    let expression = vm.root()?.kept.expressions.known.get(&id).ok_or(Status::NotFound)?;
    serialised(&expression.evaluate(vm).ok_or(Status::InternalFailure)?)
}

pub fn delete(vm: &mut Vm, argument: &[u8]) -> Result<(), Status> {
    let id = u32::from_le_bytes(argument.try_into().map_err(|_| Status::BadArgument)?);
    let expressions = &mut Arc::make_mut(&mut vm.root_mut()?.kept).expressions;
    if let Some(gone) = expressions.known.remove(&id) {
        expressions.written -= gone.written;
    }
    Ok(())
}

impl Expression {
    /// Reads an expression; `None` when it is none, or one that could cost too much.
    fn parse(text: &[u8]) -> Option<Self> {
        let text = str::from_utf8(text).ok().filter(|text| shape::is_modest(text))?;
        // The parser is not ours. Whatever a guest may make of it, it is not to take the worker with it.
        let parsed = catch_unwind(AssertUnwindSafe(|| {
            Parser::default().max_recursion_depth(shape::MOST_NESTED).parse(text)
        }));
        let tree = parsed.ok()?.ok()?;
        let patterns = Arc::new(shape::examine(&tree)?);
        Some(Self { tree, patterns, written: text.len() })
    }

    fn evaluate(&self, vm: &Vm) -> Option<Value> {
        let attributes = Attributes::new(vm);
        let mut cx = Context::with_env(Arc::clone(&ENV));
        cx.set_variable_resolver(&attributes);
        if !self.patterns.is_empty() {
            let (patterns, began, limit) = (Arc::clone(&self.patterns), thread_cpu_time(), vm.budget.limit());
            let matches = move |This(text): This<Arc<String>>, pattern: Arc<String>| -> Result<bool, _> {
                let in_time = text.len() <= MOST_MATCHED && thread_cpu_time().saturating_sub(began) <= limit;
                match patterns.get(pattern.as_str()).filter(|_| in_time) {
                    Some(known) => Ok(known.is_match(text.as_bytes())),
                    None => Err(ExecutionError::function_error("matches", "out of bounds")),
                }
            };
            cx.add_function("matches", matches).ok()?;
        }
        // As above.
        let value = catch_unwind(AssertUnwindSafe(|| Value::resolve(&self.tree, &cx)));
        value.ok()?.ok()
    }
}

/// A value as properties are written.
fn serialised(value: &Value) -> Result<Vec<u8>, Status> {
    Ok(match value {
        Value::Bool(yes) => vec![u8::from(*yes)],
        Value::Int(number) => number.to_le_bytes().to_vec(),
        Value::UInt(number) => number.to_le_bytes().to_vec(),
        Value::Float(number) => number.to_le_bytes().to_vec(),
        Value::String(text) => text.as_bytes().to_vec(),
        Value::Bytes(bytes) => bytes.to_vec(),
        Value::List(items) => pairs(
            items.iter().map(|item| Ok((serialised(item)?, Vec::new()))).collect::<Result<_, Status>>()?,
        ),
        Value::Map(map) => {
            let entry = |(key, value): (&Key, &Value)| Ok((serialised(&key.into())?, serialised(value)?));
            pairs(map.map.iter().map(entry).collect::<Result<_, Status>>()?)
        }
        Value::Function(..) | Value::Opaque(_) | Value::Struct(_) | Value::Null => {
            return Err(Status::SerializationFailure);
        }
    })
}

fn pairs(written: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<u8> {
    let mut out = Vec::new();
    encode_pairs(|| written.iter().map(|(key, value)| (key.as_slice(), value.as_slice())), &mut out);
    if out.is_empty() { vec![0; 4] } else { out }
}
