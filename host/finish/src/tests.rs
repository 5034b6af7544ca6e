use wasmparser::{Name, Validator};

use super::*;

/// A module with these imports and exports of functions, a section of its own, and names.
fn module(imports: &[&str], exports: &[&str]) -> Vec<u8> {
    let section = |id: u8, content: &[u8]| [&[id], sized(content).as_slice()].concat();
    let list = |items: Vec<Vec<u8>>| [number(items.len() as u32), items.concat()].concat();
    let import = |name: &&str| [text("env"), text(name), vec![0, 0]].concat();
    let own = imports.len() as u32;
    let export = |name: &&str| [text(name), vec![0], number(own)].concat();
    let names = |id: u8, names: &[(u32, &str)]| {
        let named = names.iter().map(|(index, name)| [number(*index), text(name)].concat()).collect();
        section(id, &list(named))
    };
    let locals = section(2, &list(vec![[number(own), list(vec![[number(0), text("x")].concat()])].concat()]));
    let functions = names(1, &[(own, "_ZN8weir_sdk4json6Reader6string17h2b74892bc5447f5aE")]);
    let name = [text("name"), section(0, &text("own.wasm")), functions, locals, names(9, &[])].concat();
    [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, &list(vec![vec![0x60, 0, 0]])),
        section(2, &list(imports.iter().map(import).collect())),
        section(3, &list(vec![vec![0]])),
        section(7, &list(exports.iter().map(export).collect())),
        section(10, &list(vec![sized(&[0, 0x0b])])),
        section(0, &[text("weir.plugin"), b"{}".to_vec()].concat()),
        section(0, &name),
    ]
    .concat()
}

fn exports(module: &[u8]) -> Vec<String> {
    let sections = Parser::new(0).parse_all(module).map(|payload| payload.expect("a module"));
    let exports = sections.filter_map(|payload| {
        let Payload::ExportSection(section) = payload else { return None };
        Some(section)
    });
    exports.flatten().map(|export| export.expect("an export").name.to_owned()).collect()
}

#[test]
fn callbacks_that_nobody_can_call_go_and_all_others_stay() {
    let callbacks = [
        "proxy_on_tick",
        "proxy_on_http_call_response",
        "proxy_on_grpc_close",
        "proxy_on_queue_ready",
        "proxy_on_log",
    ];
    for (imports, kept) in [
        (&[][..], &["proxy_on_log"][..]),
        (&["proxy_http_call", "proxy_log"], &["proxy_on_http_call_response", "proxy_on_log"]),
        (&["proxy_grpc_stream"], &["proxy_on_grpc_close", "proxy_on_log"]),
        (&["proxy_set_tick_period_milliseconds"], &["proxy_on_tick", "proxy_on_log"]),
        (&["proxy_register_shared_queue"], &["proxy_on_queue_ready", "proxy_on_log"]),
    ] {
        let finished = finish(&module(imports, &callbacks)).expect("a module");
        Validator::new().validate_all(&finished).expect("it is valid");
        assert_eq!(exports(&finished), kept, "{imports:?}");
    }
}

#[test]
fn the_functions_of_an_allocator_are_exported_only_where_hosts_have_nothing_else() {
    let finished = finish(&module(&[], &["malloc", "free", "proxy_on_memory_allocate"])).expect("a module");
    assert_eq!(exports(&finished), ["proxy_on_memory_allocate"]);
    let finished = finish(&module(&[], &["malloc", "free"])).expect("a module");
    assert_eq!(exports(&finished), ["malloc", "free"]);
}

#[test]
fn names_of_functions_and_of_the_module_stay_and_so_does_every_other_section() {
    let whole = module(&["proxy_log"], &["proxy_on_log"]);
    let finished = finish(&whole).expect("a module");
    assert!(size_of_names(&finished) < size_of_names(&whole));
    assert_eq!(finish(&finished).expect("a module"), finished, "it is finished");
    let (mut names, mut own) = (Vec::new(), None);
    for payload in Parser::new(0).parse_all(&finished) {
        let Payload::CustomSection(section) = payload.expect("a module") else { continue };
        if let KnownCustom::Name(section) = section.as_known() {
            names.extend(section.map(|name| name.expect("names")));
        } else {
            own = Some((section.name(), section.data()));
        }
    }
    assert_eq!(own, Some(("weir.plugin", b"{}".as_slice())));
    let [Name::Module { name: "own.wasm", .. }, Name::Function(functions)] = &names[..] else {
        panic!("{} names", names.len())
    };
    let functions: Vec<_> = functions.clone().into_iter().map(|name| name.expect("a name")).collect();
    assert_eq!((functions[0].index, functions[0].name), (1, "weir_sdk::json::Reader::string"));
    assert!(finish(b"no module").is_err());
}
