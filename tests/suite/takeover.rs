//! Restart without loss: a new process takes the very sockets over, and the old one drains.

mod activation;
mod handing;

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use hyper::body::Frame;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use weir_tests::guests::{wasm, weir};
use weir_tests::http::{asking, fed, get, mirror, read_head};
use weir_tests::soak::takeover::{Plan, run};
use weir_tests::soak::upstream;
use weir_tests::upstream::Upstream;
use weir_tests::wait::{soon, until};
use weir_tests::{Gateway, Setup};

use crate::lifecycle::{ACK, GOAWAY, PING, SETTINGS, read_frame, write_frame};

/// HTTP at `web` and bytes at `plain`, to one upstream.
fn forwarding(upstream: &Upstream, workers: usize) -> String {
    format!(
        "runtime: {{ workers: {workers} }}\ndrain_timeout: 1h\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] }} }}, \
           {{ name: plain, address: \"127.0.0.1:0\", tcp: {{ cluster: up }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]\n",
        upstream.address
    )
}

/// A listener that answers by itself.
fn answering(workers: usize, body: &str) -> String {
    format!(
        "runtime: {{ workers: {workers} }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", \
           http: {{ routes: [ {{ respond: {{ status: 200, body: \"{body}\" }} }} ] }} }} ]\n"
    )
}

/// Waits for the end of a process, which is to be one in order.
async fn ends(gateway: Gateway) {
    let exit = tokio::task::spawn_blocking(move || gateway.wait_for_exit()).await.expect("it ends");
    assert_eq!(exit.code(), Some(0));
}

#[tokio::test]
async fn a_new_process_listens_where_the_old_one_did_and_the_old_one_drains_and_ends() {
    let old = Setup::new().config(answering(2, "old")).start();
    let (web, admin) = (old.address("web"), old.admin_address());
    assert_eq!(get(web, "/").await.text(), "old");
    old.write_config(&answering(2, "new"));
    let new = old.successor();
    assert_eq!((new.address("web"), new.admin_address()), (web, admin));
    old.wait_for_log("the new process serves");
    ends(old).await;
    assert_eq!(get(web, "/").await.text(), "new");
    assert_eq!(new.admin("GET", "/ready").await.status, 200);
    // It is as good as one that has bound them: the next one finds it.
    let next = new.successor();
    ends(new).await;
    assert_eq!(get(web, "/").await.text(), "new");
    drop(next.stop());
}

#[tokio::test]
async fn every_socket_is_accepted_from_whatever_the_number_of_workers() {
    let mut running = Setup::new().config(answering(4, "4")).start();
    let web = running.address("web");
    for workers in [1, 3, 2] {
        let body = format!("{workers}");
        running.write_config(&answering(workers, &body));
        let next = running.successor();
        ends(std::mem::replace(&mut running, next)).await;
        // The kernel deals connections to sockets by their addresses: so many miss none of four.
        for _ in 0..100 {
            assert_eq!(get(web, "/").await.text(), body);
        }
    }
}

#[tokio::test]
async fn what_was_begun_ends_in_full_in_the_old_process() {
    let (upstream, mut asked) = asking().await;
    let old = Setup::new().config(forwarding(&upstream, 2)).start();
    let web = old.address("web");
    let mut download = TcpStream::connect(web).await.expect("it listens");
    download.write_all(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    let (_, answer) = soon("the request", asked.recv()).await.expect("it comes");
    let (feed, body) = fed();
    answer.send(Response::new(body)).expect("the upstream waits");
    feed.send(Frame::data(Bytes::from_static(b"before"))).expect("open");
    let head = read_head(&mut download).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut unanswered = TcpStream::connect(web).await.expect("it listens");
    unanswered.write_all(b"GET /waits HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    let (_, later) = soon("the request", asked.recv()).await.expect("it comes");
    let mut idle = TcpStream::connect(web).await.expect("it listens");
    let mut h2 = TcpStream::connect(web).await.expect("it listens");
    h2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
    write_frame(&mut h2, SETTINGS, 0, 0, &[]).await;

    let new = old.successor();
    old.wait_for_log("draining timeout=");
    let mut rest = Vec::new();
    soon("the end of what idles", idle.read_to_end(&mut rest)).await.expect("an end in order");
    assert!(rest.is_empty());
    let mut went_away = 0;
    while let Some((kind, flags, _, payload)) = read_frame(&mut h2).await {
        match kind {
            PING if flags & ACK == 0 => write_frame(&mut h2, PING, ACK, 0, &payload).await,
            GOAWAY => {
                assert_eq!(payload[4..8], [0; 4], "no error");
                went_away += 1;
            }
            _ => {}
        }
    }
    assert!(went_away > 0);
    feed.send(Frame::data(Bytes::from_static(b"after"))).expect("open");
    drop(feed);
    let mut rest = String::new();
    soon("the end of the download", download.read_to_string(&mut rest)).await.expect("an end in order");
    assert_eq!(rest, "6\r\nbefore\r\n5\r\nafter\r\n0\r\n\r\n");
    later.send(Response::new(weir_tests::http::full("late"))).expect("the upstream waits");
    let head = read_head(&mut unanswered).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("\r\nconnection: close\r\n"), "{head}");
    drop((download, unanswered));
    ends(old).await;
    drop(new);
}

#[tokio::test]
async fn bytes_that_are_relayed_go_on_in_the_old_process_and_new_ones_in_the_new() {
    let echo = Upstream::echo().await;
    let old = Setup::new().config(forwarding(&echo, 2)).start();
    let plain = old.address("plain");
    let echoes = async |socket: &mut TcpStream| {
        let mut echoed = [0; 4];
        socket.write_all(b"echo").await.expect("sent");
        soon("the echo", socket.read_exact(&mut echoed)).await.expect("the echo");
        assert_eq!(&echoed, b"echo");
    };
    let mut before = TcpStream::connect(plain).await.expect("it listens");
    echoes(&mut before).await;
    let _new = old.successor();
    old.wait_for_log("draining timeout=");
    echoes(&mut before).await;
    // Either process may accept one now.
    let mut meanwhile = TcpStream::connect(plain).await.expect("it listens");
    echoes(&mut meanwhile).await;
    drop((before, meanwhile));
    ends(old).await;
    let mut after = TcpStream::connect(plain).await.expect("it listens");
    echoes(&mut after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_asking_on_one_connection_is_told_of_its_end_before_it_ends() {
    let mirror = mirror().await;
    let old = Setup::new().config(forwarding(&mirror, 1)).start();
    let web = old.address("web");
    let (began, asks) = tokio::sync::oneshot::channel();
    let client = tokio::spawn(async move {
        let (mut socket, mut began) = (TcpStream::connect(web).await.expect("it listens"), Some(began));
        loop {
            socket
                .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                .await
                .expect("it was not said that it ends");
            let head = read_head(&mut socket).await;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.and_then(|length| length.parse().ok()).expect("a length")];
            soon("the body", socket.read_exact(&mut body)).await.expect("all of it");
            began.take().map(|began: tokio::sync::oneshot::Sender<()>| began.send(()));
            if head.contains("\r\nconnection: close\r\n") {
                return;
            }
        }
    });
    asks.await.expect("it asks");
    let _new = tokio::task::block_in_place(|| old.successor());
    soon("the announcement", client).await.expect("each request was answered");
    ends(old).await;
}

/// A plugin that refuses its configuration.
const REFUSES: &str = "(module (memory (export \"memory\") 1) (func (export \"proxy_abi_version_0_2_1\"))
    (func (export \"malloc\") (param i32) (result i32) (i32.const 0))
    (func (export \"proxy_on_configure\") (param i32 i32) (result i32) unreachable))";

#[tokio::test]
async fn a_new_process_that_does_not_come_to_serve_leaves_the_old_one_as_it_was() {
    let old = Setup::new().config(answering(2, "old")).start();
    let (web, good) = (old.address("web"), answering(2, "old"));
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let more = |more: String| good.replace("listeners: [", &format!("listeners: [ {more},"));
    let other = format!(
        "{{ name: other, address: \"{}\", http: {{ routes: [ {{ respond: {{ status: 200 }} }} ] }} }}",
        taken.local_addr().expect("an address")
    );
    let refuses = "{ name: other, address: \"127.0.0.1:0\", http: { filters: [ { plugin: refuses } ], routes: [ { respond: { status: 200 } } ] } }";
    std::fs::write(old.plugins().join("refuses.wasm"), weir_tests::guests::wat(REFUSES)).expect("written");
    for (config, reason) in [
        ("listeners: 7".to_owned(), "weir.yaml:"),
        (more(refuses.to_owned()), "refuses"),
        (more(other), "is in use by another process"),
    ] {
        // The running process refuses it, too.
        old.write_config(&config);
        let new = old.launch_successor();
        assert_eq!(new.wait_for_exit().code(), Some(1), "{reason}");
        new.wait_for_log(reason);
        assert!(!new.logged("ready to serve"));
        for _ in 0..20 {
            assert_eq!(get(web, "/").await.text(), "old", "{reason}");
        }
        assert_eq!(old.admin("GET", "/ready").await.status, 200, "{reason}");
    }
    assert!(!old.logged("draining"));
    old.write_config(&answering(2, "new"));
    let _new = old.successor();
    ends(old).await;
    assert_eq!(get(web, "/").await.text(), "new");
}

/// What waits for successors, below the folder of a gateway.
fn door(gateway: &Gateway) -> std::path::PathBuf {
    let folder = std::fs::read_dir(gateway.folder().join("weir")).expect("the door's folder");
    let mut doors = folder.map(|entry| entry.expect("an entry").path());
    let door = doors.next().expect("a door");
    assert_eq!(doors.next(), None);
    door
}

async fn say(socket: &mut UnixStream, text: &str) {
    let length = u32::try_from(text.len()).expect("it is short");
    socket.write_u32(length).await.expect("sent");
    socket.write_all(text.as_bytes()).await.expect("sent");
}

async fn hear(socket: &mut UnixStream) -> serde_json::Value {
    let length = soon("a message", socket.read_u32()).await.expect("a length");
    let mut text = vec![0; length as usize];
    soon("a message", socket.read_exact(&mut text)).await.expect("all of it");
    serde_json::from_slice(&text).expect("JSON")
}

#[tokio::test]
async fn one_that_got_the_sockets_and_fails_before_it_serves_is_as_if_it_had_not_been() {
    let gateway = Setup::new().config(answering(2, "old")).start();
    let web = gateway.address("web");
    for count in 1..=2 {
        let mut new = UnixStream::connect(door(&gateway)).await.expect("a door");
        // Of another version of Weir, which says more than this one knows.
        say(&mut new, r#"{"ask":{"protocol":1,"version":"9.9","more":true}}"#).await;
        let offer = hear(&mut new).await;
        let sockets = offer["offer"]["sockets"].as_array().expect("a list");
        assert_eq!(sockets.len(), 2, "the listener and the admin API: {offer}");
        assert!(sockets.iter().any(|lent| lent["name"] == "web" && lent["count"] == 2), "{offer}");
        drop(new);
        gateway.wait_for_log_count("the new process did not take over; this one goes on", count);
        assert_eq!(get(web, "/").await.text(), "old");
    }
    let mut other = UnixStream::connect(door(&gateway)).await.expect("a door");
    say(&mut other, r#"{"ask":{"protocol":2,"version":"9.9"}}"#).await;
    assert!(
        hear(&mut other).await["refused"]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("protocol 1"))
    );
    // What is no successor is sent away, and changes are taken up again.
    let mut other = UnixStream::connect(door(&gateway)).await.expect("a door");
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
    let mut rest = Vec::new();
    soon("the end", other.read_to_end(&mut rest)).await.ok();
    assert!(rest.is_empty());
    gateway.write_config(&answering(2, "changed"));
    until("the change", async || (get(web, "/").await.text() == "changed").then_some(())).await;
}

#[tokio::test]
async fn with_nobody_to_take_over_from_addresses_are_bound_and_a_door_that_was_left_is_used_again() {
    let killed = Setup::new().config(answering(1, "first")).start();
    let _left = door(&killed);
    killed.signal(Signal::KILL);
    killed.wait_for_exit();
    let next = killed.successor();
    next.wait_for_log("there is no process to take over from");
    assert_eq!(get(next.address("web"), "/").await.text(), "first");
    let last = next.successor();
    assert_eq!(last.address("web"), next.address("web"));
    let folder = last.folder().join("weir");
    let _setup = last.stop();
    assert_eq!(std::fs::read_dir(folder).expect("the folder").count(), 0, "who ends takes its door along");
}

#[tokio::test]
async fn a_takeover_socket_is_where_the_configuration_says_or_the_process_does_not_start() {
    let config = |path: &str| {
        answering(1, "here").replace("workers: 1", &format!("workers: 1, takeover_socket: {path}"))
    };
    let old = Setup::new().config(config("own/door.sock")).start();
    assert!(old.folder().join("own/door.sock").exists());
    let new = old.successor();
    assert_eq!(
        new.admin("GET", "/config").await.json()["config"]["runtime"]["takeover_socket"]
            .as_str()
            .map(|path| path.ends_with("own/door.sock")),
        Some(true)
    );
    ends(old).await;
    let nowhere = Setup::new().config(config("no/such/folder/door.sock")).launch();
    assert_eq!(nowhere.wait_for_exit().code(), Some(1));
    nowhere.wait_for_log("the takeover socket ");
    nowhere.wait_for_log("`runtime.takeover_socket`");
}

#[tokio::test]
async fn five_takeovers_under_load_fail_no_request() {
    let upstream = upstream::start().await;
    let (address, plan) = (upstream.address, Plan { takeovers: 5, rate: 400, connections: 4 });
    let survived = tokio::task::spawn_blocking(move || run(weir(), plan, address)).await.expect("takeovers");
    assert!(survived.breaches.is_empty(), "{:?}", survived.breaches);
    for measured in [&survived.kept, &survived.fresh, &survived.streams] {
        assert!(measured.latencies.len() > 50, "there was load: {}", measured.latencies.len());
    }
}

#[tokio::test]
async fn a_listener_that_is_removed_serves_what_waited_to_be_accepted() {
    let echo = Upstream::echo().await;
    let config = |more: &str| {
        format!(
            "runtime: {{ workers: 1 }}\noverload: {{ max_loop_delay: 0s }}\n\
             listeners: [ {{ name: busy, address: \"127.0.0.1:0\", http: {{ \
                 filters: [ {{ plugin: faulty, cpu: 1s }} ], routes: [ {{ respond: {{ status: 200 }} }} ] }} }} {more} ]\n\
             clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]\n",
            echo.address
        )
    };
    let gone = ", { name: web, address: \"127.0.0.1:0\", http: { routes: [ { respond: { status: 200, body: here } } ] } }, \
                { name: plain, address: \"127.0.0.1:0\", tcp: { cluster: up } }";
    let gateway = Setup::new().plugin("faulty").config(config(gone)).start();
    let (web, plain) = (gateway.address("web"), gateway.address("plain"));
    let mut busy = TcpStream::connect(gateway.address("busy")).await.expect("it listens");
    busy.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-Fault: loop\r\n\r\n").await.expect("sent");
    // For a second of CPU time the worker looks at nothing else, and then at its orders first.
    let (mut requests, mut streams) = (Vec::new(), Vec::new());
    gateway.write_config(&config(""));
    for _ in 0..10 {
        let mut socket = TcpStream::connect(web).await.expect("it listens");
        socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
        requests.push(socket);
        let mut socket = TcpStream::connect(plain).await.expect("it listens");
        socket.write_all(b"echo").await.expect("sent");
        socket.shutdown().await.expect("sent");
        streams.push(socket);
    }
    for (sockets, expected) in [(&mut requests, "HTTP/1.1 200 OK\r\n"), (&mut streams, "echo")] {
        for socket in sockets {
            let mut answer = String::new();
            soon("an answer", socket.read_to_string(&mut answer)).await.expect("an end in order");
            assert!(answer.starts_with(expected), "{answer}");
        }
    }
    for address in [web, plain] {
        until("the end of the listener", async || TcpStream::connect(address).await.err()).await;
    }
}

#[tokio::test]
async fn a_process_that_was_killed_is_back_with_its_ten_plugins_from_the_cache() {
    let names: Vec<String> = (0..10).map(|number| format!("plugin{number}")).collect();
    let filters: Vec<String> = names.iter().map(|name| format!("{{ plugin: {name} }}")).collect();
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {} ], \
           routes: [ {{ respond: {{ status: 200, body: served }} }} ] }} }} ]",
        filters.join(", ")
    );
    let mut setup = Setup::new().config(config);
    for (number, name) in (0u8..).zip(&names) {
        // The same code with a section more is another plugin.
        let mut bytes = wasm("http-version");
        bytes.extend_from_slice(&[0, 5, 4, b'm', b'a', b'r', number]);
        setup = setup.plugin_bytes(name, &bytes);
    }
    let killed = setup.start();
    assert_eq!(get(killed.address("web"), "/").await.text(), "served");
    killed.signal(Signal::KILL);
    killed.wait_for_exit();
    let began = std::time::Instant::now();
    let back = killed.successor();
    assert_eq!(get(back.address("web"), "/").await.text(), "served");
    let took = began.elapsed();
    println!("killed, and back with ten plugins after {took:.2?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    let cached = back.admin("GET", "/plugins").await.json();
    assert_eq!(cached["plugins"].as_array().map(Vec::len), Some(10));
}
