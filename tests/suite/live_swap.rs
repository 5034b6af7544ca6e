//! Plugins are replaced while traffic flows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use weir::plugin::digest::Digest;
use weir_tests::guests::{patched, wasm};
use weir_tests::http::{Client, full, upstream};
use weir_tests::upstream::Upstream;
use weir_tests::wait::{soon, until};
use weir_tests::{Gateway, Setup};

const MARK: &str = "cluster-of-version-0000";
const HTTP_MARK: &str = "this-is-version-0000";

/// Swaps under load, and their rhythm: five a second.
const SWAPS: usize = 200;
const RHYTHM: Duration = Duration::from_millis(200);

/// An upstream for each version, which answers with its number, and a configuration whose plugin routes to the cluster
/// of its version.
async fn upstreams(versions: usize) -> (Vec<Upstream>, String) {
    let mut upstreams = Vec::new();
    let mut clusters = Vec::new();
    for version in 0..versions {
        let upstream = Upstream::new(move |mut socket: TcpStream| async move {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, format!("{version}").as_bytes()).await;
        })
        .await;
        clusters.push(format!(
            "{{ name: cluster-of-version-{version:04}, endpoints: [\"{}\"] }}",
            upstream.address
        ));
        upstreams.push(upstream);
    }
    let config = format!(
        "listeners: [ {{ name: l, address: \"127.0.0.1:0\", filters: [ {{ plugin: sni-version }} ] }} ]\nclusters: [ {} ]",
        clusters.join(", ")
    );
    (upstreams, config)
}

async fn gateway(versions: usize) -> (Gateway, Vec<Upstream>) {
    let (upstreams, config) = upstreams(versions).await;
    // A cache of its own: what is compiled here is of no use to other tests, and is to be compiled each time.
    (Setup::new().plugin_bytes("sni-version", &wasm("sni-version")).config(config).start(), upstreams)
}

fn version(number: usize) -> Vec<u8> {
    patched("sni-version", MARK, &format!("cluster-of-version-{number:04}"))
}

/// What is no version of a plugin, in four ways.
fn broken(plugin: &str, mark: &str, trapping: &str) -> [Vec<u8>; 4] {
    let good = wasm(plugin);
    [
        good[..good.len() / 2].to_vec(),
        b"not wasm".to_vec(),
        patched(plugin, "proxy_abi_version_0_2_1", "proxy_abi_version_0_9_9"),
        patched(plugin, mark, trapping),
    ]
}

async fn answer(gateway: &Gateway) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(gateway.address("l")).await?;
    let mut text = String::new();
    soon("an answer", socket.read_to_string(&mut text)).await?;
    Ok(text)
}

#[tokio::test]
async fn a_file_that_is_copied_into_the_directory_decides_from_then_on() {
    let (gateway, _upstreams) = gateway(3).await;
    assert_eq!(answer(&gateway).await.expect("served"), "0");
    gateway.swap_plugin("sni-version", &version(1));
    gateway.wait_for_log("a new version serves");
    assert_eq!(answer(&gateway).await.expect("served"), "1");
    // Written in place, as `cp` does.
    std::fs::write(gateway.plugins().join("sni-version.wasm"), version(2)).expect("it can be written");
    gateway.wait_for_log_count("a new version serves", 2);
    assert_eq!(answer(&gateway).await.expect("served"), "2");
}

#[tokio::test]
async fn what_is_no_plugin_is_rejected_with_its_reason_and_the_old_version_serves() {
    let (gateway, _upstreams) = gateway(1).await;
    let good = wasm("sni-version");
    let cases: [(&str, Vec<u8>); 4] = [
        ("it is not valid WebAssembly, or not all of it", good[..good.len() / 2].to_vec()),
        ("it is not a WebAssembly module", b"#!/bin/sh\n".to_vec()),
        (
            "it exports no proxy_abi_version_*",
            patched("sni-version", "proxy_abi_version_0_2_1", "proxy_abi_version_0_9_9"),
        ),
        ("proxy_on_configure failed", patched("sni-version", MARK, "cluster-of-version-trap")),
    ];
    for (reason, bytes) in cases {
        gateway.swap_plugin("sni-version", &bytes);
        gateway.wait_for_log(reason);
        assert_eq!(answer(&gateway).await.expect("served"), "0", "{reason}");
    }
}

#[tokio::test]
async fn two_hundred_swaps_under_load_fail_no_connection_though_one_in_five_is_broken() {
    let (gateway, _upstreams) = gateway(2).await;
    let gateway = Arc::new(gateway);
    let (over, failed, served) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::default());
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (gateway, over, failed) = (Arc::clone(&gateway), Arc::clone(&over), Arc::clone(&failed));
            let served: Arc<AtomicUsize> = Arc::clone(&served);
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    match answer(&gateway).await {
                        Ok(text) if text == "0" || text == "1" => served.fetch_add(1, Ordering::Relaxed),
                        Ok(_) | Err(_) => failed.fetch_add(1, Ordering::Relaxed),
                    };
                }
            })
        })
        .collect();
    let broken = broken("sni-version", MARK, "cluster-of-version-trap");
    // Each version has other bytes, the number of the swap in a custom section behind the module.
    let distinct = |swap: usize| {
        let mut bytes = version(swap % 2);
        bytes.extend_from_slice(&[0, 9, 4, b'm', b'a', b'r', b'k']);
        bytes.extend_from_slice(&(swap as u32).to_be_bytes());
        bytes
    };
    let mut rhythm = tokio::time::interval(RHYTHM);
    for swap in 0..SWAPS {
        rhythm.tick().await;
        let bytes = if swap % 5 == 4 { broken[(swap / 5) % 4].clone() } else { distinct(swap) };
        gateway.swap_plugin("sni-version", &bytes);
    }
    // The last swap is a broken one; the one before it serves.
    gateway.swap_plugin("sni-version", &distinct(SWAPS + 1));
    let mut last =
        until("the last version", async || answer(&gateway).await.ok().filter(|text| text == "1")).await;
    for _ in 0..20 {
        last = answer(&gateway).await.expect("served");
    }
    assert_eq!(last, "1", "the right version answers at the end");
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("a client");
    }
    let (failed, served) = (failed.load(Ordering::Relaxed), served.load(Ordering::Relaxed));
    assert_eq!(failed, 0, "of {} connections", failed + served);
    assert!(served > SWAPS, "there was load: {served}");
}

/// The bytes of a version that tells its number in a header.
fn http_version(number: usize) -> Vec<u8> {
    patched("http-version", HTTP_MARK, &format!("this-is-version-{number:04}"))
}

/// One request, and the number of the version that served it; or what went wrong.
async fn served_by(client: &mut Client) -> Result<usize, String> {
    let request = client.request("POST", "/").body(full("a body")).expect("a request");
    let answer = client.call(request).await.map_err(|error| format!("{error:?}"))?;
    let version =
        answer.header("x-version").strip_prefix("this-is-version-").and_then(|number| number.parse().ok());
    match version {
        Some(version) if answer.status == 200 && answer.text() == "whole" => Ok(version),
        Some(_) | None => Err(format!("{answer:?}")),
    }
}

#[tokio::test]
async fn two_hundred_swaps_fail_no_request_on_connections_that_live_through_all_of_them() {
    let upstream = upstream(|_| async { http::Response::new(full("whole")) }).await;
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: http-version }} ], \
           routes: [ {{ cluster: up }} ] }} }} ]\nclusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    );
    let gateway = Setup::new().plugin_bytes("http-version", &wasm("http-version")).config(config).start();
    let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = Vec::new();
    for number in 0..6 {
        let address = gateway.address("web");
        let mut client = if number % 2 == 0 { Client::h1(address).await } else { Client::h2(address).await };
        let (over, served) = (Arc::clone(&over), Arc::clone(&served));
        clients.push(tokio::spawn(async move {
            let mut newest = 0;
            while !over.load(Ordering::Relaxed) {
                let version = served_by(&mut client).await?;
                if version < newest {
                    return Err(format!("version {version} served after version {newest}"));
                }
                newest = version;
                served.fetch_add(1, Ordering::Relaxed);
            }
            Ok(newest)
        }));
    }
    let broken = broken("http-version", HTTP_MARK, "this-is-version-trap");
    let mut rhythm = tokio::time::interval(RHYTHM);
    for swap in 1..=SWAPS {
        rhythm.tick().await;
        let bytes = if swap % 5 == 0 { broken[(swap / 5) % 4].clone() } else { http_version(swap) };
        gateway.swap_plugin("http-version", &bytes);
    }
    // The last of them is broken, and the only one that is certain to be looked at: a busy machine compiles for longer than others are
    // there. What comes behind it is to serve at the end.
    until("a version to be rejected", async || {
        let plugin = gateway.plugin("http-version").await;
        let versions = plugin["versions"].as_array().expect("versions");
        versions.iter().any(|version| version["state"] == "rejected").then_some(())
    })
    .await;
    let last = http_version(SWAPS + 1);
    gateway.swap_plugin("http-version", &last);
    let mut client = Client::h1(gateway.address("web")).await;
    until("the last version", async || (served_by(&mut client).await == Ok(SWAPS + 1)).then_some(())).await;
    // Every client has an answer of it, on the connection that it began with.
    let before = served.load(Ordering::Relaxed);
    until("more answers", async || (served.load(Ordering::Relaxed) > before + 100).then_some(())).await;
    over.store(true, Ordering::Relaxed);
    for client in clients {
        assert_eq!(soon("a client's end", client).await.expect("a client"), Ok(SWAPS + 1));
    }
    assert!(served.load(Ordering::Relaxed) > SWAPS, "there was load: {}", served.load(Ordering::Relaxed));
    let plugin = until("the old instances to go", async || {
        let plugin = gateway.plugin("http-version").await;
        let versions = plugin["versions"].as_array().expect("versions");
        let gone = versions.iter().all(|version| version["state"] != "draining") && plugin["instances"] == 2;
        gone.then_some(plugin)
    })
    .await;
    let versions = plugin["versions"].as_array().expect("versions");
    let serving: Vec<_> = versions.iter().filter(|version| version["state"] == "serving").collect();
    assert_eq!(serving.len(), 1, "{plugin}");
    assert_eq!(serving[0]["digest"], Digest::of(&last).to_string());
    let rejected: Vec<_> = versions.iter().filter(|version| version["state"] == "rejected").collect();
    assert!(rejected.iter().all(|version| version["reason"].is_string()), "{plugin}");
    assert!(!rejected.is_empty(), "{plugin}");
}

#[tokio::test]
async fn what_the_kernel_does_not_tell_of_is_found_by_looking() {
    // The directory is a link, as Kubernetes mounts one: it is the link that changes, which no watch of the directory
    // behind it sees.
    let (_upstreams, config) = upstreams(2).await;
    let setup = Setup::new().config(format!("plugins: {{ directory: linked, cache: cache }}\n{config}"));
    for number in 0..2 {
        let folder = setup.folder().join(format!("version-{number}"));
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("sni-version.wasm"), version(number)).expect("it can be written");
    }
    // The link that will change is not in the folder of the configuration, which is watched.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let outside = elsewhere.path().join("linked");
    std::os::unix::fs::symlink(setup.folder().join("version-0"), &outside).expect("a link");
    std::os::unix::fs::symlink(&outside, setup.folder().join("linked")).expect("a link to a link");
    let gateway = setup.start();
    assert_eq!(answer(&gateway).await.expect("served"), "0");
    let next = elsewhere.path().join("next");
    std::os::unix::fs::symlink(gateway.folder().join("version-1"), &next).expect("a link");
    std::fs::rename(&next, &outside).expect("a rename within a folder");
    gateway.wait_for_log("a new version serves");
    assert_eq!(answer(&gateway).await.expect("served"), "1");
}

#[tokio::test]
async fn a_version_is_tried_with_every_configuration_that_uses_it() {
    let mirror = weir_tests::http::mirror().await;
    // The first version takes any configuration; the one that is copied in wants a name.
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ], filters: [ \
           {{ plugin: any, name: one, config: {{ name: x }} }}, {{ plugin: any, name: two }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        mirror.address
    );
    let gateway = Setup::new().plugin_bytes("any", &wasm("official-headers")).config(config).start();
    gateway.swap_plugin("any", &wasm("phases"));
    let line = gateway.wait_for_log("a version is refused");
    assert!(line.contains("listeners[0].http.filters[1]") && line.contains("proxy_on_configure"), "{line}");
    let answer = weir_tests::http::get(gateway.address("web"), "/hello").await;
    assert_eq!(answer.text(), "Hello, World!\n", "what served goes on serving for both");
}
