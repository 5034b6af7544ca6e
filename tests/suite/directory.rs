//! The plugin directory is where others put things: whatever lies there, Weir loads only whole regular files, only the
//! bytes that it has hashed, and what serves goes on serving.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value as Json;
use weir::plugin::digest::Digest;
use weir_tests::guests::wat;
use weir_tests::http::{Client, get};
use weir_tests::wait::{soon, until};
use weir_tests::{Gateway, Setup};

use crate::check::check;

/// A plugin that tells its version in each response.
fn version(number: usize) -> Vec<u8> {
    wat(&format!(
        r#"(module
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 100) "x-version{number:06}")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
            (drop (call $add (i32.const 2) (i32.const 100) (i32.const 9) (i32.const 109) (i32.const 6)))
            (i32.const 0)))"#
    ))
}

fn config(directory: &str) -> String {
    format!(
        "plugins: {{ directory: {directory}, cache: cache }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: it }} ], \
           routes: [ {{ respond: {{ status: 200, body: served }} }} ] }} }} ]"
    )
}

/// A gateway whose filter is version 0.
fn gateway() -> Gateway {
    Setup::new().plugin_bytes("it", &version(0)).config(config("plugins")).start()
}

/// The version that serves.
async fn serving(gateway: &Gateway) -> usize {
    version_of(&get(gateway.address("web"), "/").await).expect("it is served")
}

fn version_of(answer: &weir_tests::http::Answer) -> Option<usize> {
    let number = answer.header("x-version").parse().ok()?;
    (answer.status == 200 && answer.text() == "served").then_some(number)
}

/// Clients that ask again and again.
struct Load {
    over: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<usize>>,
}

impl Load {
    async fn start(gateway: &Gateway) -> Self {
        let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = Vec::new();
        for _ in 0..3 {
            let mut client = Client::h1(gateway.address("web")).await;
            let (over, served) = (Arc::clone(&over), Arc::clone(&served));
            clients.push(tokio::spawn(async move {
                let mut failed = 0;
                while !over.load(Ordering::Relaxed) {
                    let whole = version_of(&client.get("/").await).is_some();
                    failed += usize::from(!whole);
                    served.fetch_add(1, Ordering::Relaxed);
                }
                failed
            }));
        }
        Self { over, served, clients }
    }

    /// Ends it. No request has failed, and there were some.
    async fn assert_unharmed(self) {
        let enough = async || (self.served.load(Ordering::Relaxed) > 100).then_some(());
        until("some load", enough).await;
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            assert_eq!(soon("a client's end", client).await.expect("its connection lived"), 0);
        }
    }
}

/// What `/plugins` has of the newest version of a plugin.
async fn newest(gateway: &Gateway, plugin: &str) -> Json {
    gateway.plugin(plugin).await["versions"][0].clone()
}

async fn refused(gateway: &Gateway, plugin: &str) -> String {
    let reason = async || {
        let newest = newest(gateway, plugin).await;
        (newest["state"] == "rejected").then(|| newest["reason"].as_str().expect("a reason").to_owned())
    };
    until(&format!("`{plugin}` to be refused"), reason).await
}

/// Has a path stand for something else, at once.
fn put(gateway: &Gateway, name: &str, make: impl FnOnce(&Path)) {
    let beside = gateway.folder().join("beside");
    make(&beside);
    std::fs::rename(beside, gateway.plugins().join(name)).expect("a rename within a file system");
}

fn link(target: impl AsRef<Path>) -> impl FnOnce(&Path) {
    move |path| symlink(target, path).expect("a link")
}

#[tokio::test]
async fn a_file_that_is_copied_byte_by_byte_under_load_is_taken_when_it_is_whole_and_no_request_fails() {
    let gateway = gateway();
    let load = Load::start(&gateway).await;
    let bytes = version(1);
    let path = gateway.plugins().join("it.wasm");
    std::fs::write(&path, b"").expect("it can be cut");
    let mut rhythm = tokio::time::interval(Duration::from_millis(10));
    for (at, byte) in bytes.iter().enumerate() {
        rhythm.tick().await;
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("it is there");
        file.write_all(&[*byte]).expect("it can be written");
        // In the middle it is left alone for long enough to be looked at.
        if at == bytes.len() / 2 {
            assert!(refused(&gateway, "it").await.contains("not valid WebAssembly, or not all of it"));
        }
    }
    gateway.wait_for_log("a new version serves");
    assert_eq!(serving(&gateway).await, 1);
    load.assert_unharmed().await;
}

#[tokio::test]
async fn a_link_that_is_swapped_without_pause_never_has_other_bytes_loaded_than_those_that_were_hashed() {
    const SWAPS: usize = 100_000;
    const STRETCH: usize = 1_000;
    let gateway = gateway();
    let load = Load::start(&gateway).await;
    // Good versions, something that never ends, and nothing, all behind links that lead to them in turn.
    let store = gateway.plugins().join("store");
    std::fs::create_dir(&store).expect("a folder");
    let known: Vec<_> = (1..4).map(version).collect();
    for (number, bytes) in known.iter().enumerate() {
        std::fs::write(store.join(number.to_string()), bytes).expect("it can be written");
    }
    rustix::fs::mkfifoat(rustix::fs::CWD, store.join("3"), rustix::fs::Mode::RWXU).expect("a pipe");
    let before = gateway.resident();
    let plugins = gateway.plugins();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let swapping = tokio::task::spawn_blocking(move || {
        let targets = ["store/0", "/dev/zero", "store/1", "store/3", "store/2", "store/none", "../weir.yaml"];
        for (done, target) in targets.iter().cycle().take(SWAPS).enumerate() {
            let beside = plugins.join(".beside");
            symlink(target, &beside).expect("a link");
            std::fs::rename(beside, plugins.join("it.wasm")).expect("a rename within a folder");
            if done % STRETCH == 0 {
                tell.send(done).expect("somebody waits");
            }
        }
    });
    // Among many other tests all of them take longer than anything may, and a stretch does not.
    while soon("the next stretch of swaps", told.recv()).await.is_some() {}
    swapping.await.expect("they can be made");
    put(&gateway, "it.wasm", link("store/2"));
    until("the last one", async || (serving(&gateway).await == 3).then_some(())).await;
    load.assert_unharmed().await;
    let mut good: Vec<_> = known.iter().map(|bytes| Digest::of(bytes).to_string()).collect();
    good.push(Digest::of(&version(0)).to_string());
    for version in gateway.plugin("it").await["versions"].as_array().expect("versions") {
        let digest = version["digest"].as_str();
        assert!(digest.is_none_or(|digest| good.iter().any(|good| good == digest)), "{version}");
        assert!(digest.is_some() || version["state"] == "rejected", "{version}");
    }
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB", grown >> 20);
}

#[tokio::test]
async fn links_within_the_directory_are_followed_so_that_kubernetes_can_swap_all_files_at_once() {
    // As the kubelet lays out a ConfigMap: NAME -> ..data/NAME, and ..data -> ..THE_TIME.
    let setup = Setup::new();
    let plugins = setup.folder().join("plugins");
    for number in 0..2 {
        let folder = plugins.join(format!("..2026_{number}"));
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("it.wasm"), version(number)).expect("it can be written");
    }
    symlink("..2026_0", plugins.join("..data")).expect("a link");
    symlink("..data/it.wasm", plugins.join("it.wasm")).expect("a link");
    let gateway = setup.config(config("plugins")).start();
    assert_eq!(serving(&gateway).await, 0);
    let load = Load::start(&gateway).await;
    put(&gateway, "..data", link("..2026_1"));
    std::fs::remove_dir_all(plugins.join("..2026_0")).expect("it can be removed");
    gateway.wait_for_log("a new version serves");
    assert_eq!(serving(&gateway).await, 1);
    load.assert_unharmed().await;
}

/// The number after the labels of a metric.
async fn counted(gateway: &Gateway, series: &str) -> u64 {
    let metrics = gateway.admin("GET", "/metrics").await.text();
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    line.map_or(0, |count| count.trim().parse().expect("a number"))
}

#[tokio::test]
async fn what_is_no_regular_file_is_refused_with_its_reason_and_counted_and_nobody_waits_for_it() {
    const REFUSED: &str = "weir_plugin_reloads_total{result=\"refused\"}";
    const NO_FILE: &str = "it is not a regular file (but a folder, a pipe, a device or a link)";
    const AWAY: &str = "it is a link that leads out of the plugin directory; copy the file itself";
    let gateway = gateway();
    assert_eq!(counted(&gateway, REFUSED).await, 0);
    std::fs::write(gateway.folder().join("elsewhere.wasm"), version(1)).expect("it can be written");
    let pipe = |path: &Path| {
        rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).expect("a pipe");
    };
    put(&gateway, "pipe.wasm", pipe);
    put(&gateway, "folder.wasm", |path| std::fs::create_dir(path).expect("a folder"));
    put(&gateway, "socket.wasm", |path| {
        drop(std::os::unix::net::UnixListener::bind(path).expect("a socket"))
    });
    put(&gateway, "to-the-pipe.wasm", link("pipe.wasm"));
    put(&gateway, "device.wasm", link("/dev/zero"));
    put(&gateway, "outside.wasm", link("../elsewhere.wasm"));
    put(&gateway, "proc.wasm", link("/proc/self/exe"));
    put(&gateway, "absolute.wasm", link(gateway.plugins().join("pipe.wasm")));
    put(&gateway, "nowhere.wasm", link("nothing"));
    put(&gateway, "round.wasm", link("round.wasm"));
    for (plugin, reason) in [
        ("pipe", NO_FILE),
        ("folder", NO_FILE),
        ("socket", NO_FILE),
        ("to-the-pipe", NO_FILE),
        ("device", AWAY),
        ("outside", AWAY),
        ("proc", AWAY),
        ("absolute", AWAY),
        ("nowhere", "it is a link to a file that is not there"),
        ("round", "it is a link that leads nowhere"),
    ] {
        let told = refused(&gateway, plugin).await;
        assert!(told.contains(reason), "{plugin}: {told}");
    }
    assert_eq!(counted(&gateway, REFUSED).await, 10);
    // In the place of the one that serves, too.
    put(&gateway, "it.wasm", pipe);
    assert!(refused(&gateway, "it").await.contains(NO_FILE));
    assert_eq!(serving(&gateway).await, 0, "what served goes on serving");
    put(&gateway, "it.wasm", |path| std::fs::write(path, version(1)).expect("it can be written"));
    gateway.wait_for_log("a new version serves");
    assert_eq!(serving(&gateway).await, 1);
    assert_eq!(counted(&gateway, REFUSED).await, 11, "each of them once, however often it is looked at");
}

#[tokio::test]
async fn a_file_that_anybody_may_write_is_refused_until_that_is_mended_and_the_group_may_write() {
    let gateway = gateway();
    let with_mode = |number: usize, mode: u32| {
        move |path: &Path| {
            std::fs::write(path, version(number)).expect("it can be written");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
        }
    };
    put(&gateway, "it.wasm", with_mode(1, 0o666));
    let reason = refused(&gateway, "it").await;
    assert!(reason.contains("anybody may write it (its mode is 0666); `chmod o-w` it"), "{reason}");
    assert_eq!(serving(&gateway).await, 0);
    let path = gateway.plugins().join("it.wasm");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o664)).expect("it is ours");
    gateway.wait_for_log("a new version serves");
    assert_eq!(serving(&gateway).await, 1);
}

#[tokio::test]
async fn a_directory_that_anybody_may_write_is_warned_of_since_containers_have_such() {
    let setup = Setup::new().plugin_bytes("it", &version(0)).config(config("plugins"));
    let plugins = setup.folder().join("plugins");
    std::fs::set_permissions(plugins, std::fs::Permissions::from_mode(0o777)).expect("it is ours");
    let (good, report) = check(&setup.write_config());
    assert!(good && report.contains("anybody may put plugins into"), "{report}");
    let gateway = setup.start();
    let line = gateway.wait_for_log("anybody may put plugins into");
    assert!(line.contains("WARN") && line.contains("`chmod o-w` it"), "{line}");
    assert_eq!(serving(&gateway).await, 0);
}

#[tokio::test]
async fn a_thousand_files_at_once_hold_up_neither_traffic_nor_the_plugin_that_is_used() {
    let gateway = gateway();
    let load = Load::start(&gateway).await;
    for number in 0..1000 {
        // Most are none; a few have to be compiled.
        let bytes = if number % 40 == 0 { version(1000 + number) } else { format!("none {number}").into() };
        std::fs::write(gateway.plugins().join(format!("a{number:03}.wasm")), bytes).expect("room");
    }
    gateway.swap_plugin("it", &version(1));
    gateway.wait_for_log("a new version serves plugin=\"it\"");
    let known = async || {
        let all = gateway.admin("GET", "/plugins").await.json();
        all["plugins"].as_array().expect("a list").len()
    };
    assert!(known().await < 1001, "it did not wait for all the others");
    assert_eq!(serving(&gateway).await, 1);
    until("all of them", async || (known().await == 1001).then_some(())).await;
    load.assert_unharmed().await;
    let refused = counted(&gateway, "weir_plugin_reloads_total{result=\"refused\"}").await;
    assert_eq!(refused, 975, "each of them once");
}

#[tokio::test]
async fn a_start_has_the_plugin_that_is_used_before_it_is_through_with_a_thousand_others() {
    let mut setup = Setup::new().plugin_bytes("it", &version(0)).config(config("plugins"));
    for number in 0..1000 {
        setup = setup.plugin_bytes(&format!("a{number:03}"), format!("none {number}").as_bytes());
    }
    let (good, report) = check(&setup.write_config());
    assert!(good, "{report}");
    assert_eq!(report.matches("is not used, and would be refused").count(), 1000, "a check looks at all");
    let gateway = setup.start();
    assert_eq!(serving(&gateway).await, 0);
}

#[tokio::test]
async fn odd_names_are_refused_by_a_name_that_can_be_printed_and_hidden_files_are_passed_over() {
    let gateway = gateway();
    let long = format!("{}.wasm", "x".repeat(200));
    let odd: [(&[u8], String); 7] = [
        (b"with space.wasm", "with space".to_owned()),
        (b"new\nline\x1b[31m.wasm", r"new\nline\x1b[31m".to_owned()),
        ("ümlaut.wasm".as_bytes(), r"\xc3\xbcmlaut".to_owned()),
        (b"no-\xff-utf8.wasm", r"no-\xff-utf8".to_owned()),
        (b"no-\xfe-utf8.wasm", r"no-\xfe-utf8".to_owned()),
        (br"..\..\up.wasm", String::new()),
        (long.as_bytes(), "x".repeat(200)),
    ];
    for (file, _) in &odd {
        let path = gateway.plugins().join(std::ffi::OsStr::from_bytes(file));
        std::fs::write(path, version(1)).expect("it can be written");
    }
    for hidden in [".wasm", "..wasm", ".it.wasm", "._it.wasm"] {
        std::fs::write(gateway.plugins().join(hidden), b"half of it").expect("it can be written");
    }
    for (_, name) in odd.iter().filter(|(_, name)| !name.is_empty()) {
        let reason = refused(&gateway, name).await;
        assert!(reason.contains("its name may hold letters, digits, `-`, `_` and `.` only"), "{reason}");
    }
    // Good ones, however they look.
    for name in ["a.b", "-rf", "con", "x..y"] {
        gateway.swap_plugin(name, &version(1));
        until("it to be taken", async || (newest(&gateway, name).await["state"] == "serving").then_some(()))
            .await;
    }
    let all = gateway.admin("GET", "/plugins").await.json();
    assert_eq!(all["plugins"].as_array().expect("a list").len(), 1 + 6 + 4, "{all:#}");
    assert!(!gateway.log().contains('\u{1b}'), "nothing of a name reaches a terminal as it is");
}

#[test]
fn a_plugin_that_is_used_by_a_name_that_leads_elsewhere_is_not_there() {
    let setup = Setup::new().file("outside.wasm", version(0));
    let setup = setup.config(config("plugins").replace("plugin: it", "plugin: ../outside"));
    let (good, report) = check(&setup.write_config());
    assert!(!good && report.contains("plugin `../outside` is not in"), "{report}");
}
