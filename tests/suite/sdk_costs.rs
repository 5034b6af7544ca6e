//! What filters of our SDK cost, beside what they do.

use tempfile::TempDir;
use weir::author::test::{Wanted, test};
use weir_abi::OFFERS_ROOM;
use weir_tests::Setup;
use weir_tests::guests::wasm;
use weir_tests::http::{Client, empty, mirror};

use crate::plugins::filtered;

#[test]
fn a_header_filter_is_smaller_than_60_kib_with_the_names_of_its_functions() {
    let (ours, official) = (wasm("http-version").len(), wasm("official-headers").len());
    assert!(ours < 60 << 10, "{ours} bytes");
    assert!(ours * 2 < official, "{ours} bytes, and {official} with the official SDK");
}

#[test]
fn the_filter_that_is_measured_does_the_same_on_either_sdk_and_is_half_as_large_on_ours() {
    let folder = TempDir::new().expect("a folder");
    xtask::guests::build_bench_filter(folder.path()).expect("it builds");
    let sizes = ["bench-filter", "bench-filter-official"].map(|name| {
        let plugin = folder.path().join(format!("{name}.wasm"));
        let size = std::fs::metadata(&plugin).expect("it is there").len();
        let paths = vec![xtask::cargo::root().join("benches/filter")];
        let wanted = Wanted { paths, plugin: Some(plugin.clone()), ..Wanted::default() };
        let tested = test(&wanted).expect("they run");
        let outcomes: Vec<_> = tested.iter().flat_map(|file| &file.outcomes).collect();
        assert_eq!(outcomes.len(), 3);
        let module = std::fs::read(&plugin).expect("it is there");
        let exports = exports(&module);
        assert_eq!(exports.iter().any(|export| export == OFFERS_ROOM), name == "bench-filter", "{exports:?}");
        for outcome in outcomes {
            assert!(outcome.is_good(), "{name}: {}", outcome.name);
        }
        size
    });
    assert!(sizes[0] * 2 < sizes[1], "{sizes:?}");
}

/// The names of what a module exports.
fn exports(module: &[u8]) -> Vec<String> {
    let sections = wasmparser::Parser::new(0).parse_all(module).map(|section| section.expect("it is valid"));
    let exports = sections.filter_map(|section| match section {
        wasmparser::Payload::ExportSection(exports) => Some(exports),
        _ => None,
    });
    exports.flatten().map(|export| export.expect("it is valid").name.to_owned()).collect()
}

#[tokio::test]
async fn a_value_is_read_whole_whether_it_fits_into_the_room_that_the_sdk_offers_or_not() {
    let folder = TempDir::new().expect("a folder");
    xtask::guests::build_bench_filter(folder.path()).expect("it builds");
    let plugin = std::fs::read(folder.path().join("bench-filter.wasm")).expect("it is there");
    let mirror = mirror().await;
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: bench-filter }} ], \
           routes: [ {{ cluster: up }} ] }} }} ]\nclusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        mirror.address
    );
    let gateway = Setup::new().plugin_bytes("bench-filter", &plugin).config(config).start();
    let mut client = Client::h1(gateway.address("web")).await;
    for len in [0, 1, 127, 128, 129, 5000] {
        let tenant: String = ('a'..='z').cycle().take(len).collect();
        let request = client.request("GET", "/").header("x-tenant", &tenant).body(empty());
        let answer = client.call(request.expect("a request")).await.expect("an answer").text();
        assert!(answer.contains(&format!("x-checked-tenant: {tenant}\n")), "{len} bytes: {answer}");
    }
}

#[tokio::test]
async fn a_header_is_read_with_one_allocation_and_one_that_is_not_there_with_none() {
    let mirror = mirror().await;
    let gateway = filtered(&["counting"], "{ plugin: counting }", &mirror);
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("GET", "/path").header("x-one", "1").body(empty());
    let answer = client.call(request.expect("a request")).await.expect("an answer");
    let expected = "x-allocations: one 1, none 0, path 1, all 1, set 0\n";
    assert!(answer.text().contains(expected), "{}", answer.text());
}
