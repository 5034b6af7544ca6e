//! `weir-sdk` against a host that answers badly: whatever a function returns, no filter traps.

use wasmtime::{Caller, Engine, ExternType, Func, Instance, Linker, Module, Store, TypedFunc, Val};
use weir::plugin::abi::{CALLBACKS, Function, HOST_FUNCTIONS, WASI_FUNCTIONS};
use weir_tests::guests::wasm;

/// What the host answers.
struct Host {
    /// What every function returns.
    status: u32,
    /// The configuration, as long as it is asked for.
    config: Option<&'static str>,
}

/// Statuses of the contract, and numbers that it does not have.
const STATUSES: [u32; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 13, 255, u32::MAX];

/// Guests with every callback that the SDK has, and the standard filters, with a configuration each.
const GUESTS: [(&str, &str); 11] = [
    ("awaits", ""),
    ("reads", ""),
    ("phases", r#"{"name": "one"}"#),
    ("bodies", r#"{"hold_request": true, "hold_response": true, "prepend": "x"}"#),
    ("replies", ""),
    ("sharing", ""),
    ("tcp-tap", r#"{"until": "x"}"#),
    ("sni-version", ""),
    ("authz", r#"{"rules": [{"allow": ["*"], "headers": {"x-a": "1"}, "path_prefix": "/"}]}"#),
    (
        "header-rewrite",
        r#"{"request": {"set": {"x": "%{request.path}"}, "rename": {"a": "b"}, "remove": ["c"]}}"#,
    ),
    ("sni-router", r#"{"template": "{a}.{b}", "cluster": "{a}"}"#),
];

/// Answers as the store says. The configuration is given as the real host does, through the guest's allocator.
fn answer(mut caller: Caller<'_, Host>, name: &str, params: &[Val], results: &mut [Val]) {
    let status = caller.data().status;
    if let Some(result) = results.first_mut() {
        *result = Val::I32(status.cast_signed());
    }
    let (Some(config), "proxy_get_buffer_bytes") = (caller.data().config, name) else { return };
    let allocate = caller.get_export("proxy_on_memory_allocate").and_then(|export| export.into_func());
    let allocate: TypedFunc<u32, u32> = allocate.expect("an allocator").typed(&caller).expect("its type");
    let at = allocate.call(&mut caller, config.len() as u32).expect("memory");
    let memory = caller.get_export("memory").and_then(|export| export.into_memory()).expect("memory");
    memory.write(&mut caller, at as usize, config.as_bytes()).expect("in range");
    for (param, value) in params[3..].iter().zip([at, config.len() as u32]) {
        memory.write(&mut caller, param.unwrap_i32() as usize, &value.to_le_bytes()).expect("in range");
    }
    results[0] = Val::I32(0);
}

fn start(engine: &Engine, module: &Module, host: Host) -> (Store<Host>, Instance) {
    let mut linker = Linker::new(engine);
    for import in module.imports() {
        let ExternType::Func(ty) = import.ty() else { panic!("a function") };
        let name = import.name().to_owned();
        let is_host = |function: &&Function| function.name == name;
        let host = HOST_FUNCTIONS.iter().any(|function| is_host(&function));
        assert!(host || WASI_FUNCTIONS.iter().any(|function| is_host(&function)), "{name}");
        linker
            .func_new(import.module(), import.name(), ty, move |caller, params, results| {
                if host {
                    answer(caller, &name, params, results);
                } else {
                    results.iter_mut().for_each(|result| *result = Val::I32(0));
                }
                Ok(())
            })
            .expect("each is there once");
    }
    let mut store = Store::new(engine, host);
    let instance = linker.instantiate(&mut store, module).expect("it starts");
    if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut store, "_initialize") {
        initialize.call(&mut store, ()).expect("it initializes");
    }
    (store, instance)
}

/// Calls a callback with these numbers, when there is one.
fn call(
    store: &mut Store<Host>,
    instance: &Instance,
    name: &str,
    numbers: &[u32],
) -> Result<u32, wasmtime::Error> {
    let Some(function) = instance.get_func(&mut *store, name) else { return Ok(0) };
    let function: Func = function;
    let params: Vec<Val> = numbers.iter().map(|number| Val::I32(number.cast_signed())).collect();
    let mut results = vec![Val::I32(0); function.ty(&*store).results().len()];
    function.call(store, &params, &mut results)?;
    Ok(results.first().map_or(0, |result| result.unwrap_i32().cast_unsigned()))
}

/// Everything that happens to a stream, and what else a filter may be told of.
fn live(store: &mut Store<Host>, instance: &Instance, told: u32) -> Result<(), wasmtime::Error> {
    call(store, instance, "proxy_on_context_create", &[2, 1])?;
    for callback in CALLBACKS {
        assert!(callback.params.iter().all(|size| *size == size_of::<u32>()), "{}", callback.name);
        let context = if matches!(
            callback.name,
            "proxy_on_tick"
                | "proxy_on_http_call_response"
                | "proxy_on_grpc_receive"
                | "proxy_on_grpc_close"
                | "proxy_on_queue_ready"
        ) {
            1
        } else {
            2
        };
        if matches!(
            callback.name,
            "proxy_on_context_create"
                | "proxy_on_vm_start"
                | "proxy_on_configure"
                | "proxy_on_done"
                | "proxy_on_log"
                | "proxy_on_delete"
        ) {
            continue;
        }
        let mut numbers = vec![told; callback.params.len()];
        numbers[0] = context;
        call(store, instance, callback.name, &numbers)?;
    }
    for (name, context) in
        [("proxy_on_done", 2), ("proxy_on_log", 2), ("proxy_on_delete", 2), ("proxy_on_done", 1)]
    {
        call(store, instance, name, &[context])?;
    }
    Ok(())
}

#[test]
fn no_answer_of_the_host_makes_a_filter_trap() {
    let engine = Engine::default();
    for (name, config) in GUESTS {
        let module = Module::new(&engine, wasm(name)).expect("a module");
        for status in STATUSES {
            for told in [0, 1, 100_000] {
                let (mut store, instance) = start(&engine, &module, Host { status, config: Some(config) });
                call(&mut store, &instance, "proxy_on_context_create", &[1, 0]).expect("no trap");
                call(&mut store, &instance, "proxy_on_vm_start", &[1, 0]).expect("no trap");
                let ready = call(&mut store, &instance, "proxy_on_configure", &[1, config.len() as u32]);
                let ready = ready.unwrap_or_else(|trap| panic!("{name}, status {status}: {trap:?}"));
                store.data_mut().config = None;
                assert!(status != 0 || ready == 1, "{name} refuses its configuration");
                // One that could not define its metrics refuses. Everything is called all the same.
                let lived = live(&mut store, &instance, told);
                lived.unwrap_or_else(|trap| {
                    panic!("{name} (ready: {ready}), status {status}, {told}: {trap:?}")
                });
            }
        }
    }
}

#[test]
fn only_the_callbacks_that_a_filter_implements_are_exported() {
    let engine = Engine::default();
    let exported = |guest: &str| -> Vec<&str> {
        let built = weir_finish::finish(&wasm(guest)).expect("a module");
        let module = Module::new(&engine, built).expect("a module");
        let names = CALLBACKS.iter().map(|callback| callback.name);
        let always = ["proxy_on_context_create", "proxy_on_configure", "proxy_on_delete"];
        names.filter(|name| module.get_export(name).is_some() && !always.contains(name)).collect()
    };
    assert_eq!(exported("http-version"), ["proxy_on_response_headers"]);
    assert_eq!(exported("bodies"), ["proxy_on_request_body", "proxy_on_response_body"]);
    let mut awaits = exported("awaits");
    awaits.sort_unstable();
    let expected = [
        "proxy_on_grpc_close",
        "proxy_on_grpc_receive",
        "proxy_on_http_call_response",
        "proxy_on_log",
        "proxy_on_request_headers",
        "proxy_on_response_headers",
        "proxy_on_tick",
    ];
    assert_eq!(awaits, expected, "no body is looked at for calls");
}
