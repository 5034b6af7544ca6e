//! What outlives the process: compiled code, and the last good version of each plugin.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use weir::plugin::digest::Digest;
use weir_tests::guests::{patched, wasm};
use weir_tests::http::{Client, full, get, upstream};
use weir_tests::upstream::Upstream;
use weir_tests::{Gateway, Setup};

const MARK: &str = "this-is-version-0000";

fn version(number: usize) -> Vec<u8> {
    patched("http-version", MARK, &format!("this-is-version-{number:04}"))
}

/// What is no version of it, and why.
fn broken() -> [(&'static str, Vec<u8>); 4] {
    let good = version(0);
    [
        ("it is not valid WebAssembly, or not all of it", good[..good.len() / 2].to_vec()),
        ("it is not a WebAssembly module", b"not wasm".to_vec()),
        (
            "it exports no proxy_abi_version_*",
            patched("http-version", "proxy_abi_version_0_2_1", "proxy_abi_version_0_9_9"),
        ),
        ("proxy_on_configure failed", patched("http-version", MARK, "this-is-version-trap")),
    ]
}

/// A plugin that tells its version, before an upstream that must outlive the gateways.
async fn setup() -> (Setup, Upstream) {
    let upstream = upstream(|_| async { http::Response::new(full("whole")) }).await;
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: http-version }} ], \
           routes: [ {{ cluster: up }} ] }} }} ]\nclusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    );
    (Setup::new().config(config), upstream)
}

async fn serves(gateway: &Gateway) -> String {
    let answer = get(gateway.address("web"), "/").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "whole"));
    answer.header("x-version")
}

/// The versions of the plugin in a state, with their reasons.
fn in_state(plugin: &Value, state: &str) -> Vec<(String, String)> {
    let versions = plugin["versions"].as_array().expect("versions");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let versions = versions.iter().filter(|version| version["state"] == state);
    versions.map(|version| (text(&version["digest"]), text(&version["reason"]))).collect()
}

const COMPILED: &str = "a plugin is compiled";
const FROM_CACHE: &str = "compiled code is taken from the cache";

#[tokio::test]
async fn a_start_with_a_warm_cache_compiles_nothing() {
    let (setup, _upstream) = setup().await;
    let gateway = setup.plugin_bytes("http-version", &version(1)).start();
    assert!(gateway.logged(COMPILED) && !gateway.logged(FROM_CACHE), "{}", gateway.log());
    let gateway = gateway.stop().start();
    assert!(gateway.logged(FROM_CACHE) && !gateway.logged(COMPILED), "{}", gateway.log());
    assert_eq!(serves(&gateway).await, "this-is-version-0001");
    // What was compiled for a swap is kept as well.
    gateway.swap_plugin("http-version", &version(2));
    gateway.wait_for_log("a new version serves");
    let gateway = gateway.stop().start();
    assert!(gateway.logged(FROM_CACHE) && !gateway.logged(COMPILED), "{}", gateway.log());
    assert_eq!(serves(&gateway).await, "this-is-version-0002");
}

#[tokio::test]
async fn nobody_else_may_enter_the_cache() {
    let (setup, _upstream) = setup().await;
    let cache = setup.folder().join("cache");
    fs::create_dir(&cache).expect("a folder");
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).expect("ours");
    let gateway = setup.plugin("http-version").start();
    let mode = |path: &PathBuf| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    for folder in [cache.clone(), cache.join("code"), cache.join("good")] {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
    }
    for file in [code(&gateway), cache.join("good/http-version.wasm")] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

/// The one file with compiled code.
fn code(gateway: &Gateway) -> PathBuf {
    let files = fs::read_dir(gateway.folder().join("cache/code")).expect("the cache is there");
    let files: Vec<_> = files.map(|file| file.expect("it can be read").path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[tokio::test]
async fn a_damaged_cache_entry_is_not_used_and_is_replaced() {
    let (setup, _upstream) = setup().await;
    let mut gateway = setup.plugin_bytes("http-version", &version(1)).start();
    let good = fs::read(code(&gateway)).expect("it can be read");
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let sealed = |code: &[u8]| [&Digest::of(code).0, code].concat();
    let cases = [
        ("a flipped bit in its digest", flipped(0)),
        ("a flipped bit in the code", flipped(good.len() / 2)),
        ("a flipped bit at its end", flipped(good.len() - 1)),
        ("one byte less", good[..good.len() - 1].to_vec()),
        ("less than a digest", good[..10].to_vec()),
        ("nothing", Vec::new()),
        ("what no compiler wrote, with its digest", sealed(b"not machine code")),
        ("half of the code, with its digest", sealed(&good[32..good.len() / 2])),
    ];
    for (what, bytes) in cases {
        let file = code(&gateway);
        let stopped = gateway.stop();
        fs::write(&file, bytes).expect("it can be written");
        gateway = stopped.start();
        assert!(gateway.logged("compiled code in the cache is damaged; compiling again"), "{what}");
        assert!(gateway.logged(COMPILED) && !gateway.logged(FROM_CACHE), "{what}");
        assert_eq!(serves(&gateway).await, "this-is-version-0001", "{what}");
        let written = fs::read(code(&gateway)).expect("it can be read");
        assert_eq!(Digest::of(&written[32..]).0, written[..32], "{what}");
    }
    let gateway = gateway.stop().start();
    assert!(gateway.logged(FROM_CACHE) && !gateway.logged(COMPILED), "{}", gateway.log());
}

#[tokio::test]
async fn a_start_with_a_broken_file_serves_the_last_good_version_and_says_so() {
    let (setup, _upstream) = setup().await;
    let mut gateway = setup.plugin_bytes("http-version", &version(1)).start();
    for (reason, bytes) in broken() {
        gateway = gateway.stop().plugin_bytes("http-version", &bytes).start();
        assert_eq!(serves(&gateway).await, "this-is-version-0001", "{reason}");
        let line = gateway.wait_for_log("the last version that served is used instead of the file");
        assert!(line.contains("ERROR") && line.contains(reason) && line.contains("http-version"), "{line}");
        let plugin = gateway.plugin("http-version").await;
        let notice = plugin["notice"].as_str().expect("a notice");
        assert!(
            notice.starts_with("the last version that served is used: ") && notice.contains(reason),
            "{plugin}"
        );
        let rejected = in_state(&plugin, "rejected");
        assert_eq!(rejected.len(), 1, "{plugin}");
        assert!(
            rejected[0].0 == Digest::of(&bytes).to_string() && rejected[0].1.contains(reason),
            "{plugin}"
        );
        let serving = in_state(&plugin, "serving");
        assert_eq!(serving, [(Digest::of(&version(1)).to_string(), String::new())]);
        assert_eq!(
            (in_state(&plugin, "draining"), &plugin["instances"]),
            (Vec::new(), &Value::from(2)),
            "{plugin}"
        );
    }
    // A good file ends that, whichever it is.
    gateway.swap_plugin("http-version", &version(2));
    gateway.wait_for_log("a new version serves");
    assert_eq!(serves(&gateway).await, "this-is-version-0002");
    assert!(gateway.plugin("http-version").await["notice"].is_null());
    let gateway = gateway.stop().start();
    assert!(!gateway.logged("instead of the file"), "{}", gateway.log());
    assert_eq!(serves(&gateway).await, "this-is-version-0002");
}

#[tokio::test]
async fn a_start_without_the_file_of_a_plugin_serves_the_last_good_version_and_says_so() {
    let (setup, _upstream) = setup().await;
    let gateway = setup.plugin_bytes("http-version", &version(1)).start();
    let file = gateway.plugins().join("http-version.wasm");
    let stopped = gateway.stop();
    fs::remove_file(file).expect("it is there");
    let gateway = stopped.start();
    assert_eq!(serves(&gateway).await, "this-is-version-0001");
    gateway
        .wait_for_log("the last version that served is used instead of the file: it is not in the directory");
    let plugin = gateway.plugin("http-version").await;
    assert_eq!(plugin["notice"], "the last version that served is used: it is not in the directory");
    // The same version put back is no new one, and nothing is odd about it any more.
    gateway.swap_plugin("http-version", &version(1));
    weir_tests::wait::until("the notice to go", async || {
        gateway.plugin("http-version").await["notice"].is_null().then_some(())
    })
    .await;
    assert!(!gateway.logged("a new version serves"));
}

#[tokio::test]
async fn a_plugin_that_was_never_good_stops_the_start_with_its_name_and_the_reason() {
    for (reason, bytes) in broken() {
        let (setup, _upstream) = setup().await;
        let gateway = setup.plugin_bytes("http-version", &bytes).launch();
        assert_eq!(gateway.wait_for_exit().code(), Some(1), "{reason}");
        let message = gateway.wait_for_log("weir.yaml:");
        assert!(message.contains("listeners[0].http.filters[0]"), "{message}");
        assert!(message.contains("`http-version`") && message.contains(reason), "{message}");
        assert!(!gateway.logged("ready to serve"));
    }
    let (setup, _upstream) = setup().await;
    let gateway = setup.plugin_bytes("http-versoin", &version(1)).launch();
    assert_eq!(gateway.wait_for_exit().code(), Some(1));
    let message = gateway.wait_for_log("weir.yaml:");
    assert!(message.contains("there is no http-version.wasm"), "{message}");
    assert!(message.contains("did you mean `http-versoin`?"), "{message}");
}

#[tokio::test]
async fn a_damaged_last_good_version_is_not_used() {
    let (setup, _upstream) = setup().await;
    let stopped = setup.plugin_bytes("http-version", &version(1)).start().stop();
    fs::write(stopped.folder().join("cache/good/http-version.wasm"), &version(1)[..1000]).expect("ours");
    let gateway = stopped.plugin_bytes("http-version", b"not wasm").launch();
    assert_eq!(gateway.wait_for_exit().code(), Some(1));
    gateway.wait_for_log("plugin `http-version` was refused: it is not a WebAssembly module");
}

#[tokio::test]
async fn removing_the_file_of_a_plugin_in_use_changes_nothing_for_traffic_and_is_reported() {
    let (setup, _upstream) = setup().await;
    let setup = setup.plugin_bytes("http-version", &version(1)).plugin_bytes("unused", &wasm("phases"));
    let gateway = setup.start();
    let mut client = Client::h1(gateway.address("web")).await;
    assert_eq!(client.get("/").await.header("x-version"), "this-is-version-0001");
    fs::remove_file(gateway.plugins().join("http-version.wasm")).expect("it is there");
    let line = gateway.wait_for_log("its file is gone; the last version goes on serving");
    assert!(line.contains("WARN") && line.contains("http-version"), "{line}");
    for _ in 0..20 {
        assert_eq!(client.get("/").await.header("x-version"), "this-is-version-0001");
        assert_eq!(serves(&gateway).await, "this-is-version-0001");
    }
    let plugin = gateway.plugin("http-version").await;
    assert_eq!(plugin["notice"], "its file is gone; the last version goes on serving");
    assert_eq!((in_state(&plugin, "serving").len(), &plugin["instances"]), (1, &Value::from(2)), "{plugin}");
    // A configuration that is taken meanwhile finds it all the same.
    let config = fs::read_to_string(gateway.folder().join("weir.yaml")).expect("it is there");
    gateway.write_config(&config.replace("name: web", "name: web2"));
    assert_eq!(gateway.admin("POST", "/reload").await.status, 200);
    assert_eq!(get(gateway.address("web2"), "/").await.header("x-version"), "this-is-version-0001");
    // One that nobody uses is forgotten.
    assert!(gateway.plugin("unused").await.is_object());
    fs::remove_file(gateway.plugins().join("unused.wasm")).expect("it is there");
    weir_tests::wait::until("the unused plugin to be forgotten", async || {
        gateway.plugin("unused").await.is_null().then_some(())
    })
    .await;
    // The next version is taken as ever.
    gateway.swap_plugin("http-version", &version(2));
    gateway.wait_for_log("a new version serves");
    assert_eq!(get(gateway.address("web2"), "/").await.header("x-version"), "this-is-version-0002");
    assert!(gateway.plugin("http-version").await["notice"].is_null());
}

#[tokio::test]
async fn a_start_does_not_wait_for_ever_for_a_file_that_is_being_written() {
    let (setup, _upstream) = setup().await;
    let setup = setup.plugin_bytes("http-version", &version(1));
    let path = setup.folder().join("plugins/other.wasm");
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let writer = std::thread::spawn(move || {
        let file = fs::File::create(path).expect("it can be written");
        let mut number = 0_u64;
        while !told.load(Ordering::Relaxed) {
            number += 1;
            file.write_all_at(&number.to_le_bytes(), 0).expect("it can be written");
            // The rhythm of the writer. One that never rests is put aside on a busy machine for longer than a look takes.
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let gateway = setup.start();
    gateway.wait_for_log("files that are still being written are taken up once they are whole");
    assert_eq!(serves(&gateway).await, "this-is-version-0001");
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("it ends");
    gateway.wait_for_log("it is not a WebAssembly module");
}
