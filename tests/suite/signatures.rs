//! With `plugins.require_signature`, only what one of the keys has signed is loaded, by the bytes that were read.

use std::io::Cursor;

use minisign::KeyPair;
use weir_tests::guests::patched;
use weir_tests::http::{Client, full, upstream};
use weir_tests::upstream::Upstream;
use weir_tests::wait::{soon, until};
use weir_tests::{Gateway, Setup};

use crate::check::{assert_reported, check};

const MARK: &str = "this-is-version-0000";

/// A version that tells its number in a header.
fn version(number: usize) -> Vec<u8> {
    patched("http-version", MARK, &format!("this-is-version-{number:04}"))
}

fn keys() -> KeyPair {
    KeyPair::generate_unencrypted_keypair().expect("randomness")
}

/// A signature as `minisign -S` writes it.
fn sign(keys: &KeyPair, bytes: &[u8]) -> Vec<u8> {
    let signature = minisign::sign(Some(&keys.pk), &keys.sk, Cursor::new(bytes), Some("a version"), None);
    signature.expect("a signature").into_string().into_bytes()
}

fn base64(keys: &KeyPair) -> String {
    keys.pk.to_base64()
}

async fn up() -> Upstream {
    upstream(|_| async { http::Response::new(full("whole")) }).await
}

/// A configuration that asks for signatures by one of some keys.
fn config(keys: &[&str], up: &Upstream) -> String {
    format!(
        "plugins: {{ directory: plugins, cache: cache, require_signature: {keys:?} }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: it }} ], \
           routes: [ {{ cluster: up }} ] }} }} ]\nclusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        up.address
    )
}

/// A plugin with a signature in the directory.
fn signed(setup: Setup, bytes: &[u8], signature: &[u8]) -> Setup {
    setup.plugin_bytes("it", bytes).file("plugins/it.wasm.sig", signature)
}

/// Copies a signature in as an operator would.
fn swap_signature(gateway: &Gateway, signature: &[u8]) {
    let beside = gateway.folder().join("beside.sig");
    std::fs::write(&beside, signature).expect("the folder can be written");
    std::fs::rename(beside, gateway.plugins().join("it.wasm.sig")).expect("a rename within a file system");
}

/// The version that serves.
async fn serving(client: &mut Client) -> usize {
    let answer = client.get("/").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "whole"));
    let version = answer.header("x-version");
    version.strip_prefix("this-is-version-").and_then(|number| number.parse().ok()).expect("a version")
}

/// What is said of a version, its bytes, and its signature.
type Wrong = (&'static str, Vec<u8>, Option<Vec<u8>>);

/// What is wrong, each with the sentence that says so: signatures of the first of two keys are asked for.
fn wrong(first: &KeyPair, second: &KeyPair) -> Vec<Wrong> {
    let bytes = version(1);
    let mut tampered = sign(first, &bytes);
    // In the trusted comment, which is signed, too.
    let at = tampered.windows(9).position(|text| text == b"a version").expect("the comment");
    tampered[at] = b'A';
    vec![
        (
            "it is not signed, and `plugins.require_signature` asks for that: it.wasm.sig: it is not there; sign it: \
             `minisign -Sm it.wasm -x it.wasm.sig`",
            bytes.clone(),
            None,
        ),
        (
            "it is signed with a key that is not in `plugins.require_signature`; sign it with one that is, or add",
            bytes.clone(),
            Some(sign(second, &bytes)),
        ),
        (
            "it.wasm.sig is a signature of other bytes, or no true one",
            bytes.clone(),
            Some(sign(first, &version(0))),
        ),
        ("it.wasm.sig is a signature of other bytes, or no true one", bytes.clone(), Some(tampered)),
        ("it.wasm.sig is not a signature in minisign's format", bytes.clone(), Some(b"RW\xff".to_vec())),
        ("it.wasm.sig is not a signature in minisign's format", bytes.clone(), Some(Vec::new())),
        ("it.wasm.sig is not a signature in minisign's format", bytes, Some(vec![b'\n'; 100_000])),
    ]
}

#[tokio::test]
async fn what_is_not_signed_by_one_of_the_keys_is_refused_by_check_and_by_run_with_the_reason() {
    let up = up().await;
    let (first, second) = (keys(), keys());
    for (reason, bytes, signature) in wrong(&first, &second) {
        let mut setup = Setup::new().plugin_bytes("it", &bytes).config(config(&[&base64(&first)], &up));
        if let Some(signature) = signature {
            setup = setup.file("plugins/it.wasm.sig", signature);
        }
        let (good, report) = check(&setup.write_config());
        assert!(!good && report.contains(reason), "{reason}: {report}");
        let gateway = setup.launch();
        assert_eq!(gateway.wait_for_exit().code(), Some(1), "{reason}");
        assert!(gateway.logged(reason), "{reason}");
    }
}

#[tokio::test]
async fn what_serves_goes_on_serving_when_versions_come_that_are_not_signed_as_they_have_to_be() {
    let up = up().await;
    let (first, second) = (keys(), keys());
    let setup = signed(Setup::new(), &version(0), &sign(&first, &version(0)));
    let gateway = setup.config(config(&[&base64(&first)], &up)).start();
    let mut client = Client::h1(gateway.address("web")).await;
    for (number, (reason, bytes, signature)) in wrong(&first, &second).into_iter().enumerate() {
        let path = gateway.plugins().join("it.wasm.sig");
        match signature {
            Some(signature) => swap_signature(&gateway, &signature),
            None => std::fs::remove_file(path).expect("it is there"),
        }
        // Each has other bytes, in a custom section behind the module, but none that was signed.
        let bytes =
            [&bytes[..], &[0, 6, 4, b'm', b'a', b'r', b'k', u8::try_from(number).expect("few")]].concat();
        gateway.swap_plugin("it", &bytes);
        let digest = weir::plugin::digest::Digest::of(&bytes).to_string();
        let newest = until("it to be refused", async || {
            let plugin = gateway.plugin("it").await;
            let versions = plugin["versions"].as_array().expect("versions").clone();
            versions.into_iter().find(|version| version["digest"] == *digest)
        })
        .await;
        assert_eq!(newest["state"], "rejected");
        let told = newest["reason"].as_str().expect("a reason");
        assert!(told.contains(reason.split(';').next().expect("a part")), "{reason}: {told}");
        assert_eq!(serving(&mut client).await, 0, "{reason}");
    }
}

#[tokio::test]
async fn a_signature_that_comes_later_has_the_file_looked_at_again() {
    let up = up().await;
    let keys = keys();
    let setup = signed(Setup::new(), &version(0), &sign(&keys, &version(0)));
    let gateway = setup.config(config(&[&base64(&keys)], &up)).start();
    let mut client = Client::h1(gateway.address("web")).await;
    gateway.swap_plugin("it", &version(1));
    gateway.wait_for_log("a version is refused: it.wasm.sig is a signature of other bytes");
    assert_eq!(serving(&mut client).await, 0);
    swap_signature(&gateway, &sign(&keys, &version(1)));
    gateway.wait_for_log("a new version serves");
    assert_eq!(serving(&mut client).await, 1);
    // What serves is what was verified, whatever becomes of its signature.
    std::fs::remove_file(gateway.plugins().join("it.wasm.sig")).expect("it is there");
    let line = gateway.wait_for_log("it goes on serving, and would be refused now: it is not signed");
    assert!(line.contains("WARN"), "{line}");
    assert_eq!(serving(&mut client).await, 1);
    let notice = gateway.plugin("it").await["notice"].clone();
    assert!(notice.as_str().is_some_and(|notice| notice.contains("it is not signed")), "{notice}");
    swap_signature(&gateway, &sign(&keys, &version(1)));
    until("the notice to go", async || gateway.plugin("it").await["notice"].is_null().then_some(())).await;
}

#[tokio::test]
async fn signed_versions_are_swapped_under_load_and_unsigned_ones_between_them_fail_no_request() {
    const SWAPS: usize = 20;
    let up = up().await;
    let keys = keys();
    let setup = signed(Setup::new(), &version(0), &sign(&keys, &version(0)));
    let gateway = setup.config(config(&[&base64(&keys)], &up)).start();
    let mut client = Client::h1(gateway.address("web")).await;
    let (over, mut ended) = tokio::sync::oneshot::channel::<()>();
    let asking = tokio::spawn(async move {
        let mut newest = 0;
        while ended.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            let version = serving(&mut client).await;
            assert!(version >= newest && version % 2 == 0, "version {version} after {newest}");
            newest = version;
        }
        newest
    });
    let mut rhythm = tokio::time::interval(std::time::Duration::from_millis(150));
    for number in 1..=SWAPS {
        rhythm.tick().await;
        gateway.swap_plugin("it", &version(number));
        // One in two is not signed.
        if number % 2 == 0 {
            swap_signature(&gateway, &sign(&keys, &version(number)));
        }
    }
    let mut client = Client::h1(gateway.address("web")).await;
    until("the last version", async || (serving(&mut client).await == SWAPS).then_some(())).await;
    over.send(()).expect("it asks");
    soon("the client's end", asking).await.expect("no request failed");
}

#[tokio::test]
async fn one_of_several_keys_is_enough_and_a_key_may_stand_in_a_file() {
    let up = up().await;
    let (first, second) = (keys(), keys());
    let file = second.pk.to_box().expect("a box").into_string();
    let setup = signed(Setup::new(), &version(0), &sign(&second, &version(0))).file("ops.pub", file);
    let gateway = setup.config(config(&[&base64(&first), "ops.pub"], &up)).start();
    let mut client = Client::h1(gateway.address("web")).await;
    assert_eq!(serving(&mut client).await, 0);
    gateway.swap_plugin("it", &version(1));
    swap_signature(&gateway, &sign(&first, &version(1)));
    gateway.wait_for_log("a new version serves");
    assert_eq!(serving(&mut client).await, 1);
    // Keys are read at the start: others need another one.
    gateway.write_config(&config(&[&base64(&second)], &up));
    gateway.wait_for_log("`plugins.require_signature` has changed: that takes effect at the next start");
    assert_eq!(serving(&mut client).await, 1);
}

#[tokio::test]
async fn the_last_version_that_served_is_used_at_a_start_only_when_a_key_of_today_has_signed_it() {
    let up = up().await;
    let (old, new) = (keys(), keys());
    let setup = signed(Setup::new(), &version(0), &sign(&old, &version(0)));
    let gateway = setup.config(config(&[&base64(&old)], &up)).start();
    let setup = gateway.stop().plugin_bytes("it", b"broken").config(config(&[&base64(&old)], &up));
    let gateway = setup.start();
    gateway.wait_for_log("the last version that served is used instead of the file");
    assert_eq!(serving(&mut Client::h1(gateway.address("web")).await).await, 0);
    let gateway = gateway.stop().config(config(&[&base64(&new)], &up)).launch();
    assert_eq!(gateway.wait_for_exit().code(), Some(1));
    gateway.wait_for_log("it is signed with a key that is not in `plugins.require_signature`");
}

#[tokio::test]
async fn a_version_that_served_before_signatures_were_asked_for_is_not_fallen_back_to() {
    let up = up().await;
    let keys = keys();
    let unsigned = config(&[], &up).replace(", require_signature: []", "");
    let gateway = Setup::new().plugin_bytes("it", &version(0)).config(unsigned).start();
    let gateway = gateway.stop().config(config(&[&base64(&keys)], &up)).launch();
    assert_eq!(gateway.wait_for_exit().code(), Some(1));
    gateway.wait_for_log("it is not signed, and `plugins.require_signature` asks for that");
}

#[tokio::test]
async fn a_signature_is_a_regular_file_and_nobody_waits_for_another() {
    let up = up().await;
    let keys = keys();
    let setup = Setup::new().plugin_bytes("it", &version(0)).config(config(&[&base64(&keys)], &up));
    let pipe = setup.folder().join("plugins/it.wasm.sig");
    rustix::fs::mkfifoat(rustix::fs::CWD, pipe, rustix::fs::Mode::RWXU).expect("a pipe");
    let (good, report) = check(&setup.write_config());
    assert!(!good && report.contains("it.wasm.sig: it is not a regular file"), "{report}");
}

#[tokio::test]
async fn what_is_no_key_is_an_error_in_its_place() {
    let up = up().await;
    let good = base64(&keys());
    for (keys, at, reason) in [
        (
            vec!["RWQnonsense"],
            "1:66",
            "`RWQnonsense` is no public key; write the second line of minisign's .pub",
        ),
        (vec![&*good, "missing.pub"], "1:126", "missing.pub cannot be read: No such file"),
        (
            vec!["other.pub"],
            "1:66",
            "other.pub holds no public key of minisign's; make one with `minisign -G`",
        ),
        (
            vec![],
            "1:65",
            "no key is named, so that no plugin could be loaded; name one, or leave the field out",
        ),
    ] {
        let setup = Setup::new().plugin_bytes("it", &version(0)).file("other.pub", "not one\nof those\n");
        let setup = setup.config(config(&keys, &up));
        let path = setup.write_config();
        let (good, report) = check(&path);
        assert!(!good, "{report}");
        let written = std::fs::read_to_string(&path).expect("it was written");
        let line = 1 + written.lines().position(|line| line.starts_with("plugins:")).expect("it is there");
        assert_reported(&report, &path, &at.replacen('1', &line.to_string(), 1), reason);
    }
}
