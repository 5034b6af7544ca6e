//! The README says what is true: its configuration reference is the schema's, its plugin works as it stands.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;
use weir_tests::Setup;
use weir_tests::http::get;

const BEGIN: &str = "<!-- reference: begin -->\n";
const END: &str = "<!-- reference: end -->\n";

fn root() -> &'static Path {
    xtask::cargo::root()
}

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).expect("the README")
}

/// The configuration reference as the schema has it: a table for each section, in the order in which they come up.
fn reference() -> String {
    let schema = weir::config::schema();
    let mut text = String::new();
    let mut waiting = vec!["".to_owned()];
    let mut at = 0;
    while let Some(name) = waiting.get(at).cloned() {
        at += 1;
        let section = if name.is_empty() { &schema } else { &schema["$defs"][&name] };
        let title = if name.is_empty() { "Top level".to_owned() } else { format!("`{}`", plain(&name)) };
        text.push_str(&format!(
            "\n#### {title}\n\n{}\n\n",
            section["description"].as_str().expect("described")
        ));
        text.push_str("| field | type | default | meaning |\n|---|---|---|---|\n");
        for (field, schema) in section["properties"].as_object().expect("fields") {
            let required =
                section["required"].as_array().is_some_and(|list| list.iter().any(|name| name == field));
            let default = match (&schema["default"], required) {
                (Json::Null, true) => "(needed)".to_owned(),
                (Json::Null, false) => String::new(),
                (Json::String(text), _) => format!("`{text}`"),
                (value, _) => format!("`{value}`"),
            };
            let meaning = schema["description"].as_str().expect("described").replace('|', "\\|");
            text.push_str(&format!("| `{field}` | {} | {default} | {meaning} |\n", type_of(schema)));
            let mut found = Vec::new();
            sections_in(schema, &mut found);
            waiting.extend(found.into_iter().filter(|name| !waiting.contains(name)).collect::<Vec<_>>());
        }
    }
    text
}

/// The name of a section for people.
fn plain(name: &str) -> String {
    name.strip_suffix("Section").unwrap_or(name).to_owned()
}

fn referred(schema: &Json) -> Option<&str> {
    schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/"))
}

fn sections_in(schema: &Json, found: &mut Vec<String>) {
    if let Some(name) = referred(schema) {
        found.push(name.to_owned());
    }
    for part in ["items", "additionalProperties"] {
        sections_in_part(&schema[part], found);
    }
    for part in ["anyOf", "oneOf"] {
        schema[part].as_array().into_iter().flatten().for_each(|part| sections_in(part, found));
    }
}

fn sections_in_part(schema: &Json, found: &mut Vec<String>) {
    if schema.is_object() {
        sections_in(schema, found);
    }
}

fn type_of(schema: &Json) -> String {
    if let Some(name) = referred(schema) {
        return format!("`{}`", plain(name));
    }
    if let Some(words) = schema["enum"].as_array() {
        return words
            .iter()
            .map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned))
            .map(|word| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(", ");
    }
    for part in ["anyOf", "oneOf"] {
        if let Some(parts) = schema[part].as_array() {
            return parts.iter().map(type_of).collect::<Vec<_>>().join(" or ");
        }
    }
    if let Some(word) = schema["const"].as_str() {
        return format!("`{word}`");
    }
    match schema["pattern"].as_str() {
        Some(pattern) if pattern.contains("ms") => return "duration".to_owned(),
        Some(pattern) if pattern.contains("iB") => return "size".to_owned(),
        Some(_) | None => {}
    }
    match &schema["type"] {
        Json::String(kind) if kind == "array" => format!("list of {}", type_of(&schema["items"])),
        Json::String(kind) if kind == "object" && schema["additionalProperties"].is_object() => {
            format!("mapping to {}", type_of(&schema["additionalProperties"]))
        }
        Json::String(kind) if kind == "object" => "mapping".to_owned(),
        Json::String(kind) if kind == "string" && schema["format"] == "path" => "path".to_owned(),
        Json::String(kind) if kind == "string" => "text".to_owned(),
        Json::String(kind) if kind == "integer" => "number".to_owned(),
        Json::String(kind) if kind == "boolean" => "`true`, `false`".to_owned(),
        Json::String(kind) => kind.clone(),
        Json::Array(_) => "text".to_owned(),
        _ => "any".to_owned(),
    }
}

#[test]
fn the_configuration_reference_is_that_of_the_schema() {
    let readme = readme();
    let (before, rest) = readme.split_once(BEGIN).expect("where the reference begins");
    let (found, after) = rest.split_once(END).expect("where it ends");
    let reference = reference();
    if std::env::var_os("WEIR_UPDATE_README").is_some() {
        let text = format!("{before}{BEGIN}{reference}\n{END}{after}");
        std::fs::write(root().join("README.md"), text).expect("it can be written");
        return;
    }
    assert_eq!(
        found.trim(),
        reference.trim(),
        "run `WEIR_UPDATE_README=1 cargo test --workspace --test suite -- readme` and look at the change"
    );
}

/// The block of code that follows a line of the README.
fn block<'a>(readme: &'a str, after: &str, language: &str) -> &'a str {
    let (_, rest) = readme.split_once(after).unwrap_or_else(|| panic!("no {after:?} in the README"));
    let (_, rest) = rest.split_once(&format!("```{language}\n")).expect("a block");
    rest.split_once("```").expect("its end").0
}

/// Builds the README's plugin as it stands there, but for the place of the SDK.
fn build_hello(readme: &str, folder: &Path) -> PathBuf {
    let sdk = root().join("guest-sdk");
    let manifest = block(readme, "`hello/Cargo.toml`", "toml");
    assert!(manifest.contains("../weir/guest-sdk"), "{manifest}");
    let manifest = manifest.replace("../weir/guest-sdk", sdk.to_str().expect("a plain path"));
    std::fs::create_dir_all(folder.join("src")).expect("a folder");
    std::fs::write(folder.join("Cargo.toml"), manifest).expect("it can be written");
    std::fs::write(folder.join("src/lib.rs"), block(readme, "`hello/src/lib.rs`", "rust"))
        .expect("it can be written");
    // The versions that are there already.
    std::fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).expect("it can be copied");
    xtask::guests::install_target().expect("the target");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let target = xtask::cargo::target().join("readme");
    cargo.current_dir(folder).args(["build", "--quiet", "--release", "--target", "wasm32-wasip1"]);
    let status = cargo.env("CARGO_TARGET_DIR", &target).status().expect("cargo runs");
    assert!(status.success(), "the README's plugin builds");
    target.join("wasm32-wasip1/release/hello.wasm")
}

#[tokio::test]
async fn the_plugin_of_the_readme_works_as_it_stands() {
    let readme = readme();
    let code = block(&readme, "`hello/src/lib.rs`", "rust");
    assert!(code.lines().count() <= 30, "thirty lines: {}", code.lines().count());
    let folder = tempfile::tempdir().expect("a folder");
    let wasm = build_hello(&readme, folder.path());
    let config = block(&readme, "`weir.yaml`", "yaml").replace("127.0.0.1:8080", "127.0.0.1:0");
    let config = config.replace("127.0.0.1:9901", "127.0.0.1:0");
    let setup =
        Setup::new().plugin_bytes("hello", &std::fs::read(wasm).expect("it was built")).config(config);
    let gateway = setup.start();
    let answer = get(gateway.address("web"), "/").await;
    assert_eq!(answer.header("x-greeting"), "hello from a plugin");
}

#[tokio::test]
async fn the_configurations_beside_the_filters_are_good() {
    let certificate = weir_tests::tls::certificate(&["edge.example"]);
    let mut seen = 0;
    for name in xtask::guests::filters().expect("the filters") {
        let example = root().join("filters").join(&name).join("example.yaml");
        let text = std::fs::read_to_string(&example)
            .unwrap_or_else(|error| panic!("{}: {error}", example.display()));
        // Ports that are free, and a cache of the test's own.
        let text: String = text.lines().map(|line| format!("{}\n", free(line))).collect();
        let setup = Setup::new().plugin(&name);
        std::fs::create_dir(setup.folder().join("tls")).expect("a folder");
        let setup = setup
            .file("tls/server.pem", &certificate.cert)
            .file("tls/server.key", &certificate.key)
            .file("tls/ca.pem", weir_tests::tls::authority().pem())
            .config(text);
        let config = setup.write_config();
        let mut check = Command::new(weir_tests::guests::weir());
        // What `api-key` has of the environment.
        check.args(["check", "--config"]).arg(&config).env("CI_API_KEY", "a-key-that-nobody-guesses");
        let output = check.output();
        let output = output.expect("weir can be started");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        seen += 1;
    }
    assert!(seen >= 3, "the standard filters: {seen}");
}

/// A listener's line with port 0.
fn free(line: &str) -> String {
    match line.split_once("address:").and_then(|(before, rest)| Some((before, rest.rsplit_once(':')?))) {
        Some((before, (host, port))) => {
            let rest = port.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}address:{host}:0{rest}")
        }
        None => line.to_owned(),
    }
}
