//! `docs/plugins`: one plugin in several languages. Each is built from source as a reader builds it, and does what the cases
//! that all of them share say.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use weir::author::test::{Wanted, test};

use weir_tests::guests::weir;
use weir_tests::http::{Client, empty, mirror};
use weir_tests::languages::Language;
use weir_tests::{Setup, upstream};

/// The folder of the plugin in all its languages.
fn folder() -> PathBuf {
    xtask::cargo::root().join("docs/plugins/api-key")
}

/// Builds the plugin of a folder by `weir plugin build`, and returns the file.
fn build(name: &str, environment: Vec<(&'static str, OsString)>) -> PathBuf {
    // Two at once would write the same file.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let out = Command::new(weir())
        .args(["plugin", "build", name])
        .current_dir(folder())
        .env("NO_COLOR", "1")
        .envs(environment)
        .output()
        .expect("weir runs");
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{name}: {said}{}", String::from_utf8_lossy(&out.stderr));
    folder().join(said.split(": ").next().expect("the file"))
}

/// All cases are good with the plugin in one language, and so is a request to a gateway that has it.
fn assert_is_the_same(name: &str, environment: Vec<(&'static str, OsString)>) {
    let wasm = build(name, environment);
    let wanted = Wanted { paths: vec![folder()], plugin: Some(wasm.clone()), ..Wanted::default() };
    let tested = test(&wanted).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    let outcomes: Vec<_> = tested.iter().flat_map(|file| &file.outcomes).collect();
    assert!(outcomes.len() >= 16, "{} cases", outcomes.len());
    for outcome in outcomes {
        let differences: Vec<String> = outcome.differences.iter().map(|found| found.text()).collect();
        assert!(outcome.is_good(), "{name}: {}: {differences:#?}", outcome.name);
    }
    upstream::background().block_on(assert_serves(&fs::read(wasm).expect("it is there")));
}

/// The cache with the code of a plugin. A gateway is waited for for half a minute, and Go's runtime can take longer to compile among
/// other tests. What was compiled is kept from one run to the next.
fn compiled(wasm: &[u8]) -> PathBuf {
    let cache = Language::Go.cache();
    let mut compiling = Command::new(weir())
        .args(["plugin", "compile", "--memory", "100000000000000", "--cpu", "600", "--cache"])
        .arg(&cache)
        .stdin(Stdio::piped())
        .spawn()
        .expect("weir runs");
    compiling.stdin.take().expect("it is piped").write_all(wasm).expect("it is read");
    assert!(compiling.wait().expect("it ends").success());
    cache
}

/// Two filters of it, with a VM in common and a key each, on two routes.
async fn assert_serves(wasm: &[u8]) {
    let mirror = mirror().await;
    let filter = |name: &str| {
        format!(
            "{{ plugin: api-key, name: {name}, vm_id: one, config: {{ keys: {{ {name}: 0123456789abcdef-{name} }} }} }}"
        )
    };
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {}, {} ], routes: [ \
           {{ match: {{ path_prefix: /ann }}, cluster: up, filters: {{ bob: off }} }}, \
           {{ cluster: up, filters: {{ ann: off }} }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        filter("ann"),
        filter("bob"),
        mirror.address
    );
    let cache = compiled(wasm);
    let plugins = format!("plugins: {{ directory: plugins, cache: \"{}\" }}\n", cache.display());
    let gateway = Setup::new().plugin_bytes("api-key", wasm).config(plugins + &config).start();
    let mut client = Client::h1(gateway.address("web")).await;
    for (path, key, user) in [
        ("/ann", "0123456789abcdef-ann", Some("ann")),
        ("/ann", "0123456789abcdef-bob", None),
        ("/bob", "0123456789abcdef-bob", Some("bob")),
        ("/bob", "0123456789abcdef-ann", None),
    ] {
        let request = client.request("GET", path).header("x-api-key", key).body(empty());
        let answer = client.call(request.expect("a request")).await.expect("an answer");
        let told = answer.text().lines().find_map(|line| line.strip_prefix("x-user: ").map(str::to_owned));
        assert_eq!(told.as_deref(), user, "{path} with {key}: {}", answer.text());
        assert_eq!(answer.status, if user.is_some() { 200 } else { 401 }, "{path} with {key}");
        assert!(!answer.text().contains("x-api-key"), "{}", answer.text());
    }
}

#[test]
fn a_check_of_api_keys_with_our_sdk_does_what_the_cases_say() {
    assert_is_the_same("weir-sdk", Vec::new());
}

#[test]
fn a_check_of_api_keys_with_the_official_crate_does_what_the_cases_say() {
    assert_is_the_same("proxy-wasm-rust", Vec::new());
}

#[test]
fn a_check_of_api_keys_in_go_does_what_the_cases_say() {
    let Some(environment) = Language::Go.environment() else { return };
    assert_is_the_same("go", environment);
}

#[test]
fn a_check_of_api_keys_in_c_does_what_the_cases_say() {
    let Some(environment) = Language::C.environment() else { return };
    assert_is_the_same("c", environment);
}
