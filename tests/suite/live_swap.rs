//! Plugins are replaced while traffic flows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use weir_tests::guests::{patched, wasm};
use weir_tests::upstream::Upstream;
use weir_tests::wait::soon;
use weir_tests::{Gateway, Setup};

const MARK: &str = "cluster-of-version-0000";

/// A gateway whose plugin routes to the cluster of its version, each of which answers with its number.
async fn gateway(versions: usize) -> (Gateway, Vec<Upstream>) {
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
    (Setup::new().plugin("sni-version").config(config).start(), upstreams)
}

fn version(number: usize) -> Vec<u8> {
    patched("sni-version", MARK, &format!("cluster-of-version-{number:04}"))
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
        ("it exports no proxy_abi_version_*", patched("sni-version", "proxy_abi_version_0_2_1", "proxy_abi_version_0_9_9")),
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
    const SWAPS: usize = 200;
    let (gateway, _upstreams) = gateway(2).await;
    let gateway = Arc::new(gateway);
    let (over, failed, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::default());
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
    let good = wasm("sni-version");
    let broken = [
        good[..good.len() / 2].to_vec(),
        b"not wasm".to_vec(),
        patched("sni-version", "proxy_abi_version_0_2_1", "proxy_abi_version_0_9_9"),
        patched("sni-version", MARK, "cluster-of-version-trap"),
    ];
    // Each version has other bytes, the number of the swap in a custom section behind the module.
    let distinct = |swap: usize| {
        let mut bytes = version(swap % 2);
        bytes.extend_from_slice(&[0, 9, 4, b'm', b'a', b'r', b'k']);
        bytes.extend_from_slice(&(swap as u32).to_be_bytes());
        bytes
    };
    let mut rhythm = tokio::time::interval(Duration::from_millis(200));
    for swap in 0..SWAPS {
        rhythm.tick().await;
        let bytes = if swap % 5 == 4 { broken[(swap / 5) % 4].clone() } else { distinct(swap) };
        gateway.swap_plugin("sni-version", &bytes);
    }
    // The last swap is a broken one; the one before it serves.
    gateway.swap_plugin("sni-version", &distinct(SWAPS + 1));
    let mut last = weir_tests::wait::until("the last version", async || {
        answer(&gateway).await.ok().filter(|text| text == "1")
    })
    .await;
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
