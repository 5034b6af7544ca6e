//! The callbacks: each is a line in the log, and then what the script says.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::host::{self, Args};
use crate::script::{Script, SoFar, Statement, Token, Variables};

#[derive(Default)]
struct State {
    /// The scripts of the plugins, by root context.
    scripts: HashMap<u32, Rc<Script>>,
    /// The streams: their root context, and by what name they are told.
    streams: HashMap<u32, (u32, usize)>,
    begun: usize,
    /// Whether a message has come to its end.
    ended: bool,
    calls: HashMap<(u32, &'static str), u32>,
    variables: Variables,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Room for what the host gives. It is never given back: a puppet does not live long.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(len: usize) -> *mut u8 {
    Box::leak(vec![0; len].into_boxed_slice()).as_mut_ptr()
}

/// Follows the script in a callback. `end`: whether a message is at its end, where that is told.
pub fn run(context: u32, callback: &'static str, end: Option<u32>, arguments: &[u32], otherwise: u32) -> u32 {
    let (name, script, nth) = STATE.with_borrow_mut(|state| {
        let (root, name) = match state.streams.get(&context) {
            Some((root, number)) => (*root, format!("stream{number}")),
            None => (context, "root".to_owned()),
        };
        let nth = state.calls.entry((context, callback)).or_insert(0);
        *nth += 1;
        let nth = *nth;
        let variables = &mut state.variables.0;
        variables.insert("this".to_owned(), context.into());
        variables.insert("root".to_owned(), root.into());
        for (at, argument) in arguments.iter().enumerate() {
            variables.insert((at + 1).to_string(), (*argument).into());
        }
        (name, state.scripts.get(&root).cloned(), nth)
    });
    // A timer is a matter of time, and so is how often it fires; the number of headers is the host's taste.
    match callback {
        "tick" => {}
        "request_headers" | "response_headers" | "request_trailers" | "response_trailers" => {
            let end = end.map(|end| format!(" end={end}")).unwrap_or_default();
            host::log(&format!("{name} {callback}{end}"));
        }
        _ => host::log(&format!("{name} {callback} {arguments:?}")),
    }
    let Some(script) = script else { return otherwise };
    let so_far = STATE.with_borrow_mut(|state| {
        state.ended |= end.is_some_and(|end| end != 0) || callback.ends_with("_trailers");
        SoFar { streaming: state.begun > 0, ended: state.ended }
    });
    let Some(rule) = script.find(callback, nth, end, so_far) else { return otherwise };
    let mut result = otherwise;
    for statement in &rule.statements {
        if let Some(returned) = follow(&name, statement) {
            result = returned;
        }
    }
    result
}

/// Follows one statement; a number when it returns one.
fn follow(name: &str, statement: &Statement) -> Option<u32> {
    let (Some(Token::Word(verb)), rest) = (statement.first(), &statement[1..]) else { return None };
    match (verb.as_str(), rest) {
        ("return", [Token::Word(number)]) => {
            return Some(STATE.with_borrow(|state| state.variables.number(number)) as u32);
        }
        ("let", [Token::Word(name)]) => STATE.with_borrow_mut(|state| {
            let last = state.variables.number("$last");
            state.variables.0.insert(name.clone(), last);
        }),
        ("log", [Token::Text(text)]) => host::log(&format!("{name} {}", String::from_utf8_lossy(text))),
        ("env", [Token::Word(variable)]) => {
            host::log(&format!("{name} env {variable} {:?}", std::env::var(variable).ok()));
        }
        ("trap", []) => std::process::abort(),
        ("loop", []) => loop {
            std::hint::spin_loop();
        },
        (function, arguments) => call(name, function, arguments),
    }
    None
}

fn call(name: &str, function: &str, arguments: &[Token]) {
    // The host may call the allocator meanwhile, which does not look at the state.
    let called = STATE.with_borrow(|state| {
        let mut args = Args::new(arguments, &state.variables);
        let status = host::call(function, &mut args)?;
        Some((status, args.results()))
    });
    let Some((status, (shown, last))) = called else {
        return host::log(&format!("{name} does not know {function}"));
    };
    if let Some(last) = last {
        STATE.with_borrow_mut(|state| state.variables.0.insert("last".to_owned(), last));
    }
    // Without success, results are whatever they were.
    let shown = if status == 0 { shown.join(" ") } else { String::new() };
    let function = function.trim_start_matches("proxy_");
    let quiet = matches!(function, "get_current_time_nanoseconds" | "set_effective_context");
    let shown = if quiet { String::new() } else { shown };
    host::log(format!("{name} {function} = {status} {shown}").trim_end());
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, parent: u32) {
    let began = STATE.with_borrow_mut(|state| {
        if parent == 0 {
            return "root".to_owned();
        }
        state.begun += 1;
        let number = state.begun;
        state.streams.insert(context, (parent, number));
        state.variables.0.insert("stream".to_owned(), context.into());
        format!("stream{number}")
    });
    host::log(&format!("{began} context_create"));
}

fn configure(context: u32, kind: u32, length: u32) {
    let bytes = host::buffer(kind, length);
    let script = Script::parse(&String::from_utf8_lossy(&bytes));
    STATE.with_borrow_mut(|state| state.scripts.insert(context, Rc::new(script)));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(context: u32, length: u32) -> u32 {
    configure(context, 6, length);
    run(context, "vm_start", None, &[], 1)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(context: u32, length: u32) -> u32 {
    configure(context, 7, length);
    run(context, "configure", None, &[], 1)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(context: u32) {
    run(context, "tick", None, &[], 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_new_connection(context: u32) -> u32 {
    run(context, "new_connection", None, &[], 0)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_downstream_data(context: u32, length: u32, end: u32) -> u32 {
    run(context, "downstream_data", Some(end), &[length, end], 0)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_upstream_data(context: u32, length: u32, end: u32) -> u32 {
    run(context, "upstream_data", Some(end), &[length, end], 0)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_downstream_connection_close(context: u32, peer: u32) {
    run(context, "downstream_connection_close", None, &[peer], 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_upstream_connection_close(context: u32, peer: u32) {
    run(context, "upstream_connection_close", None, &[peer], 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_body(context: u32, length: u32, end: u32) -> u32 {
    run(context, "request_body", Some(end), &[length, end], 0)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_trailers(context: u32, count: u32) -> u32 {
    run(context, "request_trailers", None, &[count], 0)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_body(context: u32, length: u32, end: u32) -> u32 {
    run(context, "response_body", Some(end), &[length, end], 0)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_trailers(context: u32, count: u32) -> u32 {
    run(context, "response_trailers", None, &[count], 0)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(context: u32, call: u32, headers: u32, body: u32, trailers: u32) {
    STATE.with_borrow_mut(|state| state.variables.0.insert("call".to_owned(), call.into()));
    run(context, "http_call_response", None, &[headers.min(1), body, trailers], 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_receive_initial_metadata(context: u32, call: u32, count: u32) {
    STATE.with_borrow_mut(|state| state.variables.0.insert("call".to_owned(), call.into()));
    run(context, "grpc_receive_initial_metadata", None, &[count.min(1)], 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_receive(context: u32, call: u32, length: u32) {
    STATE.with_borrow_mut(|state| state.variables.0.insert("call".to_owned(), call.into()));
    run(context, "grpc_receive", None, &[length], 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_receive_trailing_metadata(context: u32, call: u32, count: u32) {
    STATE.with_borrow_mut(|state| state.variables.0.insert("call".to_owned(), call.into()));
    run(context, "grpc_receive_trailing_metadata", None, &[count], 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_close(context: u32, call: u32, status: u32) {
    STATE.with_borrow_mut(|state| state.variables.0.insert("call".to_owned(), call.into()));
    run(context, "grpc_close", None, &[status], 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_queue_ready(context: u32, queue: u32) {
    STATE.with_borrow_mut(|state| state.variables.0.insert("queue".to_owned(), queue.into()));
    run(context, "queue_ready", None, &[], 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_foreign_function(context: u32, function: u32, length: u32) {
    run(context, "foreign_function", None, &[function, length], 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_done(context: u32) -> u32 {
    run(context, "done", None, &[], 1)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(context: u32) {
    run(context, "log", None, &[], 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    run(context, "delete", None, &[], 0);
    STATE.with_borrow_mut(|state| state.streams.remove(&context));
}
