//! `weir plugin new` and `build`, as somebody uses them who has the command and nothing of this repository.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use tempfile::TempDir;
use weir_tests::guests::weir;
use weir_tests::http::{Client, empty};
use weir_tests::{Setup, upstream};

/// Where new plugins are built: dependencies once for all of them.
fn target() -> &'static PathBuf {
    static TARGET: OnceLock<PathBuf> = OnceLock::new();
    TARGET.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new-plugins");
        // Whatever a run before has left is older than this command.
        let _ = fs::remove_dir_all(&target);
        target
    })
}

/// Runs `weir plugin` in a folder, and gives what it said and its exit status.
fn plugin(folder: &Path, args: &[&str]) -> (String, Option<i32>) {
    said(Command::new(weir()).arg("plugin").args(args).current_dir(folder))
}

fn said(command: &mut Command) -> (String, Option<i32>) {
    let command = command.env("NO_COLOR", "1").env("CARGO_TARGET_DIR", target());
    let Output { stdout, stderr, status } = command.output().expect("it runs");
    (String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr), status.code())
}

#[track_caller]
fn good((said, status): (String, Option<i32>)) -> String {
    assert_eq!(status, Some(0), "{said}");
    said
}

#[test]
fn from_an_empty_folder_to_a_plugin_that_answers_in_a_gateway() {
    let setup = Setup::new();
    let folder = setup.folder().to_owned();
    let said = good(plugin(&folder, &["new", "my-first"]));
    assert!(said.contains("weir plugin test my-first"), "{said}");
    let said = good(plugin(&folder, &["build", "my-first"]));
    assert!(said.contains("my-first.wasm: "), "{said}");
    let config = fs::read_to_string(folder.join("my-first/gateway.yaml")).expect("it is there");
    let config = config
        .replace("directory: .  ", "directory: my-first\n  cache: cache")
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("127.0.0.1:9901", "127.0.0.1:0");
    let gateway = setup.config(config).start();
    upstream::background().block_on(async {
        let mut client = Client::h1(gateway.address("web")).await;
        let request = client.request("GET", "/hello").body(empty()).expect("a request");
        let answer = client.call(request).await.expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "Hello, world!\n".to_owned()));
    });
}

/// The size of a plugin that `weir plugin build` has told of, and how much of that is names of functions.
fn size(said: &str) -> (usize, usize) {
    let line = said.lines().find(|line| line.contains(".wasm: ")).unwrap_or_else(|| panic!("{said}"));
    let numbers =
        line.split_once(".wasm: ").expect("it is there").1.split(' ').filter_map(|word| word.parse().ok());
    let numbers: Vec<usize> = numbers.collect();
    assert_eq!(numbers.len(), 2, "{line}");
    (numbers[0], numbers[1])
}

const SIXTY_KIB: usize = 60 << 10;

#[test]
fn a_new_http_filter_is_smaller_than_60_kib_with_the_names_of_its_functions() {
    let folder = TempDir::new().expect("a folder");
    good(plugin(folder.path(), &["new", "small"]));
    let crate_folder = folder.path().join("small");
    // Nothing goes over it, whatever is installed.
    fake(folder.path(), "wasm-opt", "cp \"$4\" \"$6\"");
    let (all, names) = size(&good(build_with(folder.path(), &crate_folder)));
    let built = fs::metadata(crate_folder.join("small.wasm")).expect("it is there").len();
    assert_eq!(all as u64, built);
    assert!(names > 0 && all < SIXTY_KIB, "{all} bytes, {names} of them names");

    // The compiler of AssemblyScript brings one along, for the tests of languages.
    let binaryen = xtask::cargo::target().join("foreign/assemblyscript/node_modules/.bin");
    if !binaryen.join("wasm-opt").exists() {
        eprintln!("skipped: there is no wasm-opt in {}", binaryen.display());
        return;
    }
    let (smaller, names) = size(&good(build_with(&binaryen, &crate_folder)));
    assert!(names > 0 && smaller < all, "{smaller} bytes, {names} of them names");
}

#[test]
fn the_test_of_a_new_plugin_runs_its_cases_by_the_command_and_fails_with_them() {
    let folder = TempDir::new().expect("a folder");
    good(plugin(folder.path(), &["new", "checked"]));
    let crate_folder = folder.path().join("checked");
    let cargo_test = || {
        said(Command::new("cargo").args(["test", "--quiet"]).current_dir(&crate_folder).env("WEIR", weir()))
    };
    good(cargo_test());
    let source = crate_folder.join("src/lib.rs");
    let changed = fs::read_to_string(&source).expect("it is there").replace("Hello, ", "Go away, ");
    fs::write(&source, changed).expect("it is written");
    let (said, status) = cargo_test();
    assert_ne!(status, Some(0), "{said}");
    assert!(said.contains("- Hello, world!") && said.contains("+ Go away, world!"), "{said}");
}

#[test]
fn a_new_network_filter_builds_and_its_cases_are_good() {
    let folder = TempDir::new().expect("a folder");
    good(plugin(folder.path(), &["new", "relay_guard", "--kind", "network"]));
    let said = good(plugin(folder.path(), &["test", "relay_guard"]));
    assert!(said.contains("3 cases: 3 good, 0 bad"), "{said}");
    let wasm =
        fs::read(folder.path().join("relay_guard/relay_guard.wasm")).expect("it is beside its Cargo.toml");
    let names = b"on_downstream_data";
    assert!(wasm.windows(names.len()).any(|window| window == names), "the names of functions are gone");
}

/// The piece of code on the front page of the SDK's documentation that has this in it.
fn of_the_front_page(wanted: &str) -> String {
    let source = xtask::cargo::root().join("guest-sdk/src/lib.rs");
    let source = fs::read_to_string(source).expect("it is there");
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let page: String = lines.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect();
    // Between the first and the second fence is code, and so on.
    let code = page.split("```").skip(1).step_by(2).find(|code| code.contains(wanted)).expect("it is there");
    let (_language, code) = code.split_once('\n').expect("lines");
    code.lines().filter(|line| !line.starts_with("# ")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_filter_of_the_sdks_front_page_does_what_the_case_beside_it_says() {
    let folder = TempDir::new().expect("a folder");
    good(plugin(folder.path(), &["new", "quota"]));
    let own = folder.path().join("quota");
    fs::write(own.join("src/lib.rs"), of_the_front_page("is_known")).expect("it is written");
    let cases = fs::read_dir(own.join("cases")).expect("cases").map(|file| file.expect("a file").path());
    cases.for_each(|file| fs::remove_file(file).expect("it goes"));
    let known = "  - name: a tenant that is known passes so often\n    \
                 calls: [ { cluster: tenants, times: 1, answer: { status: 200 } } ]\n    \
                 steps:\n      - { request: { headers: { x-tenant: bob } }, expect: { response: { status: 200 } } }\n      \
                 - { request: { headers: { x-tenant: bob } }, expect: { response: { status: 200 }, calls: [] } }\n";
    fs::write(own.join("cases/quota.yaml"), of_the_front_page("cases:") + known).expect("it is written");
    let said = good(plugin(folder.path(), &["test", "quota"]));
    assert!(said.contains("2 cases: 2 good, 0 bad"), "{said}");
}

/// A filter that traps when a cluster has answered, in a function of its own.
const BROKEN: &str = r#"
use weir_sdk::http;
use weir_sdk::prelude::*;

struct Broken;

/// Counts on a body that is longer.
#[inline(never)]
fn who_it_is(answer: &[u8]) -> u8 {
    answer[1_000]
}

#[weir_sdk::http_filter]
impl HttpFilter for Broken {
    fn new(_: ()) -> Result<Self> {
        Ok(Self)
    }

    async fn on_request_headers(&self, request: &mut Request, _: &mut ()) -> Result<Action> {
        let answer = http::call("other", http::Request::get(&request.path()?)).await?;
        request.set_header("x-who", [who_it_is(answer.body())])?;
        Ok(Action::Continue)
    }
}
"#;

#[test]
fn a_trap_behind_an_await_is_logged_with_its_line_and_the_names_of_functions() {
    let setup = Setup::new();
    let folder = setup.folder().to_owned();
    good(plugin(&folder, &["new", "broken"]));
    fs::write(folder.join("broken/src/lib.rs"), BROKEN).expect("it is written");
    good(plugin(&folder, &["build", "broken"]));
    let wasm = fs::read(folder.join("broken/broken.wasm")).expect("it is there");
    upstream::background().block_on(async {
        let mirror = weir_tests::http::mirror().await;
        let config = format!(
            "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: broken, grants: {{ clusters: [other] }} }} ], \
               routes: [ {{ cluster: other }} ] }} }} ]\n\
             clusters: [ {{ name: other, endpoints: [\"{}\"] }} ]",
            mirror.address
        );
        let gateway = setup.plugin_bytes("broken", &wasm).config(config).start();
        let mut client = Client::h1(gateway.address("web")).await;
        assert_eq!(client.get("/").await.status, 503);
        gateway.wait_for_log("index out of bounds: the len is");
        gateway.wait_for_log("panicked at src/lib.rs:10:5");
        for function in ["broken::who_it_is", "weir_sdk::flow::", "proxy_on_http_call_response"] {
            gateway.wait_for_log(&format!(" - broken.wasm!{function}"));
        }
        // Each line is as one reads it: nothing of a linker's, no hashes, no parameters.
        let log = gateway.log();
        let shown: Vec<&str> = log.lines().filter_map(|line| line.split_once(" - broken.wasm!")).map(|(_, name)| name).collect();
        assert!(shown.len() > 5 && shown.contains(&"core::panicking::panic_fmt"), "{log}");
        let is_hash = |part: &str| part.len() == 17 && part.starts_with('h') && !part.contains('_');
        for name in shown {
            let of_a_linker = ["_ZN", "_R", "$", "::<"].iter().any(|part| name.contains(part));
            assert!(!of_a_linker && !name.split("::").any(is_hash), "{name}");
        }
    });
}

/// The callbacks and the host functions of a plugin, as `weir plugin inspect` tells them.
fn callbacks(folder: &Path, name: &str) -> Vec<String> {
    good(plugin(folder, &["build", name]));
    let told = good(plugin(folder, &["inspect", &format!("{name}/{name}.wasm"), "--json"]));
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let callbacks = told["callbacks"].as_array().expect("a list").iter();
    callbacks.map(|name| name.as_str().expect("a name").to_owned()).collect()
}

#[test]
fn what_is_exported_is_what_a_filter_implements_and_what_answers_that_which_it_awaits() {
    let folder = TempDir::new().expect("a folder");
    good(plugin(folder.path(), &["new", "awaits"]));
    let source = folder.path().join("awaits/src/lib.rs");
    let call = "http::call(\"other\", http::Request::get(&request.path()?)).await?";
    let sleep = "weir_sdk::timer::sleep(std::time::Duration::from_millis(5)).await";
    let grpc = "weir_sdk::grpc::call(\"other\", \"a.B\", \"C\", request.path()?).await?";
    for (awaited, answers) in [
        (call, &["proxy_on_http_call_response"][..]),
        (sleep, &["proxy_on_tick"]),
        (grpc, &["proxy_on_grpc_receive", "proxy_on_grpc_close"]),
    ] {
        let text = BROKEN.replace(call, awaited).replace("answer.body()", "b\"\"");
        fs::write(&source, text).expect("it is written");
        let mut wanted = vec![
            "proxy_on_context_create",
            "proxy_on_configure",
            "proxy_on_request_headers",
            "proxy_on_delete",
        ];
        wanted.extend(answers);
        wanted.sort_unstable();
        let mut found = callbacks(folder.path(), "awaits");
        found.sort_unstable();
        assert_eq!(found, wanted, "{awaited}");
    }
}

#[test]
fn nothing_that_is_there_is_written_over_and_a_name_that_is_none_is_refused() {
    let folder = TempDir::new().expect("a folder");
    fs::create_dir(folder.path().join("taken")).expect("it is made");
    let (said, status) = plugin(folder.path(), &["new", "taken"]);
    assert_eq!(status, Some(1));
    assert!(said.contains("there is a taken already"), "{said}");
    for name in ["9lives", "a b", "ä"] {
        let (said, status) = plugin(folder.path(), &["new", name]);
        assert_eq!(status, Some(1), "{name}");
        assert!(said.contains("is no name for a crate"), "{said}");
    }
    let left = fs::read_dir(folder.path()).expect("it is there").count();
    assert_eq!(left, 1, "only what was there");
}

#[test]
fn a_plugin_of_another_language_is_built_as_its_manifest_says() {
    let folder = TempDir::new().expect("a folder");
    let manifest = folder.path().join("weir-plugin.yaml");
    let write = |text: &str| fs::write(&manifest, text).expect("it is written");
    fs::write(folder.path().join("source"), weir_tests::guests::wasm("sni-version")).expect("it is written");
    write("name: copied\nbuild: [cp, source, made.wasm]\noutput: made.wasm\n");
    let said = good(plugin(folder.path(), &["build"]));
    assert!(said.starts_with("copied.wasm: "), "{said}");
    let (made, source) = (folder.path().join("copied.wasm"), folder.path().join("source"));
    assert_eq!(fs::read(made).expect("it is there"), fs::read(source).expect("it is there"));

    for (text, problem) in [
        ("build: [cp, source, made.wasm]\noutput: other.wasm\n", "`cp source made.wasm` left no "),
        ("build: [cp, nothing, made.wasm]\noutput: made.wasm\n", "`cp nothing made.wasm` failed"),
        ("build: [no-such-command]\noutput: made.wasm\n", "`no-such-command` cannot be run"),
        ("build: []\noutput: made.wasm\n", "weir-plugin.yaml:1:8: build: a command is expected here"),
        ("output: made.wasm\n", "weir-plugin.yaml:1:1: build: a command is expected here"),
        ("builds: x\n", "unknown field `builds`; did you mean `build`?"),
    ] {
        write(text);
        let (said, status) = plugin(folder.path(), &["build"]);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(problem), "{problem}\nin\n{said}");
    }
}

#[test]
fn a_folder_without_a_plugin_is_told_how_to_get_one() {
    let folder = TempDir::new().expect("a folder");
    let (said, status) = plugin(folder.path(), &["build"]);
    assert_eq!(status, Some(1));
    assert!(said.contains("is no plugin: it has neither a Cargo.toml nor a weir-plugin.yaml"), "{said}");
    let (said, status) = plugin(folder.path(), &["test"]);
    assert_eq!(status, Some(1));
    assert!(said.contains("has no cases: write the first one into cases/NAME.yaml"), "{said}");
}

/// A command in the place of another one: a shell script.
fn fake(folder: &Path, name: &str, script: &str) {
    let file = folder.join(name);
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("it is written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("it can be run");
}

/// `weir plugin build` with some commands before those that there are.
fn build_with(commands: &Path, folder: &Path) -> (String, Option<i32>) {
    let path = std::env::var("PATH").expect("there is one");
    let path = format!("{}:{path}", commands.display());
    said(Command::new(weir()).args(["plugin", "build"]).current_dir(folder).env("PATH", path))
}

#[test]
fn wasm_opt_goes_over_a_plugin_when_it_is_there_and_is_told_to_keep_the_names() {
    let folder = TempDir::new().expect("a folder");
    good(plugin(folder.path(), &["new", "smaller"]));
    let crate_folder = folder.path().join("smaller");
    fake(folder.path(), "wasm-opt", "echo \"$@\" > \"$(dirname \"$0\")/told\"; cp \"$4\" \"$6\"");
    let said = good(build_with(folder.path(), &crate_folder));
    assert!(said.contains("smaller.wasm: ") && !said.contains("not installed"), "{said}");
    let told = fs::read_to_string(folder.path().join("told")).expect("it was run");
    assert!(told.starts_with("-O3 --strip-dwarf -g "), "{told}");

    fake(folder.path(), "wasm-opt", "exit 7");
    let (said, status) = build_with(folder.path(), &crate_folder);
    assert_eq!(status, Some(1));
    assert!(said.contains("wasm-opt failed (exit status: 7)"), "{said}");
}

#[test]
fn a_toolchain_without_the_target_is_given_it_or_told_about_it() {
    let folder = TempDir::new().expect("a folder");
    good(plugin(folder.path(), &["new", "targeted"]));
    fake(folder.path(), "rustc", "echo /nowhere");
    fake(folder.path(), "rustup", "echo \"$@\" > \"$(dirname \"$0\")/told\"; exit 1");
    let (said, status) = build_with(folder.path(), &folder.path().join("targeted"));
    assert_eq!(status, Some(1));
    assert_eq!(
        fs::read_to_string(folder.path().join("told")).expect("it was asked"),
        "target add wasm32-wasip1\n"
    );
    assert!(said.contains("`rustup target add wasm32-wasip1` failed; install the target by hand"), "{said}");
}
