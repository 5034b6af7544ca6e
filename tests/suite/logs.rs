//! Logs and metrics neither block nor fill anything: who does not read them loses lines, and nobody else loses anything.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_tests::gateway::own_address;
use weir_tests::guests::weir;
use weir_tests::http::{Client, empty, get};
use weir_tests::soak::weir::metric;
use weir_tests::tls;
use weir_tests::wait::{PATIENCE, soon, until};
use weir_tests::{Gateway, Setup};

/// A listener that answers by itself, with this access log.
fn answering(log: &str, more: &str) -> String {
    format!(
        "access_log: {log}\nlisteners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ \
           routes: [ {{ name: all, respond: {{ status: 200, body: answered }} }} ] }} }} {more} ]\n"
    )
}

/// Lines that a log has lost.
async fn lost(admin: SocketAddr, log: &str, reason: &str) -> f64 {
    let (log, reason) = (format!("log=\"{log}\""), reason.to_owned());
    let both = format!("{log},reason=\"{reason}\"");
    let ask = move || metric(admin, "weir_log_lines_lost_total", &both);
    tokio::task::spawn_blocking(ask).await.expect("the admin API answers")
}

/// A process whose log and whose access log nobody reads, and where it listens.
struct Unread {
    child: Child,
    web: SocketAddr,
    admin: SocketAddr,
    _setup: Setup,
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn unread() -> Unread {
    let (web, admin) = (own_address(91), own_address(92));
    let config = format!(
        "admin: {{ address: \"{admin}\" }}\naccess_log: stdout\n\
         listeners: [ {{ name: web, address: \"{web}\", http: {{ routes: [ {{ respond: {{ status: 200 }} }} ] }} }} ]\n"
    );
    let setup = Setup::new().config(config);
    let mut command = Command::new(weir());
    command.args(["run", "--config"]).arg(setup.write_config());
    command.env("WEIR_LOG", "weir=debug,info").env("XDG_RUNTIME_DIR", setup.folder());
    // The pipes are held, and never read.
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("weir can be started");
    let ready = async || {
        let mut socket = TcpStream::connect(admin).await.ok()?;
        socket.write_all(b"GET /ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.ok()?;
        answer.starts_with("HTTP/1.1 200 ").then_some(())
    };
    until("a process that is ready", ready).await;
    Unread { child, web, admin, _setup: setup }
}

#[tokio::test]
async fn pipes_that_nobody_reads_stall_neither_traffic_nor_the_drain() {
    let mut unread = unread().await;
    // Weir's own log has a line for each: more than a pipe holds.
    for _ in 0..1000 {
        let mut socket = TcpStream::connect(unread.web).await.expect("it listens");
        socket.write_all(b"NO\r\n\r\n").await.expect("sent");
        let mut answer = String::new();
        soon("an answer", socket.read_to_string(&mut answer)).await.expect("an end in order");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    // And the access log more than may wait: 8 MiB.
    let path = format!("/{}", "a".repeat(12 * 1024));
    let mut client = Client::h1(unread.web).await;
    for _ in 0..1000 {
        assert_eq!(client.get(&path).await.status, 200);
    }
    assert!(lost(unread.admin, "access", "behind").await > 0.0);
    assert_eq!(lost(unread.admin, "access", "unwritable").await, 0.0);
    drop(client);
    let pid = rustix::process::Pid::from_child(&unread.child);
    rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
    let began = Instant::now();
    let exit = loop {
        if let Some(exit) = unread.child.try_wait().expect("a child") {
            break exit;
        }
        assert!(began.elapsed() < PATIENCE, "it does not end");
        tokio::task::yield_now().await;
    };
    assert_eq!(exit.code(), Some(0));
}

/// Lines of an access log, each whole, for paths that begin with this.
fn lines(file: &Path, path: &str) -> usize {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let parsed =
        text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a whole line"));
    parsed.filter(|line| line["path"].as_str().is_some_and(|own| own.starts_with(path))).count()
}

#[tokio::test]
async fn a_log_that_is_moved_away_is_opened_anew_by_a_signal_and_by_a_reload_and_no_line_is_lost() {
    let gateway = Setup::new().config(answering("access.log", "")).start();
    let (file, web) = (gateway.folder().join("access.log"), gateway.address("web"));
    let mut client = Client::h1(web).await;
    for round in 0..3 {
        for number in 0..20 {
            assert_eq!(client.get(&format!("/round{round}/{number}")).await.status, 200);
        }
        until("the lines", async || (lines(&file, &format!("/round{round}/")) == 20).then_some(())).await;
        let moved = gateway.folder().join(format!("access.log.{round}"));
        std::fs::rename(&file, &moved).expect("a rename");
        // Until it is told, it writes where it did.
        assert_eq!(client.get("/moved").await.status, 200);
        until("the line in the old file", async || (lines(&moved, "/moved") == 1).then_some(())).await;
        match round {
            0 => gateway.signal(Signal::USR1),
            1 => gateway.signal(Signal::HUP),
            _ => assert_eq!(gateway.admin("POST", "/reload").await.status, 200),
        }
        until("the new file", async || file.exists().then_some(())).await;
    }
    let admin = gateway.admin_address();
    assert_eq!(lost(admin, "access", "behind").await + lost(admin, "access", "unwritable").await, 0.0);
}

#[tokio::test]
async fn a_full_disk_costs_lines_that_are_counted_and_no_request() {
    let setup = Setup::new().config(answering("log", ""));
    let link = setup.folder().join("log");
    // Every write to this device says that the disk is full.
    std::os::unix::fs::symlink("/dev/full", &link).expect("a link");
    let gateway = setup.start();
    let mut client = Client::h1(gateway.address("web")).await;
    for _ in 0..50 {
        assert_eq!(client.get("/full").await.status, 200);
    }
    gateway.wait_for_log("lines of a log are lost");
    let admin = gateway.admin_address();
    until("fifty lost lines", async || (lost(admin, "access", "unwritable").await == 50.0).then_some(()))
        .await;
    std::fs::remove_file(&link).expect("it can be removed");
    gateway.signal(Signal::USR1);
    until("the new file", async || link.exists().then_some(())).await;
    assert_eq!(client.get("/room").await.status, 200);
    until("a line", async || (lines(&link, "/room") == 1).then_some(())).await;
    gateway.wait_for_log("the log is written again");
    assert_eq!(lost(admin, "access", "unwritable").await, 50.0);
}

/// A small file system in memory, as long as it lives.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(folder.path()).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn when_there_is_room_on_the_disk_again_lines_are_written_again_and_whole() {
    let Some(small) = Small::mount() else {
        eprintln!("not shown here: nothing may be mounted");
        return;
    };
    let (file, ballast) = (small.0.path().join("access.log"), small.0.path().join("ballast"));
    std::fs::write(&ballast, vec![0; 32 * 1024]).expect("there is room");
    let gateway = Setup::new().config(answering(&file.display().to_string(), "")).start();
    let (mut client, admin) = (Client::h1(gateway.address("web")).await, gateway.admin_address());
    let full = async || {
        assert_eq!(client.get("/full").await.status, 200);
        (lost(admin, "access", "unwritable").await > 0.0).then_some(())
    };
    until("a full disk", full).await;
    std::fs::remove_file(&ballast).expect("it can be removed");
    let again = async || {
        assert_eq!(client.get("/again").await.status, 200);
        std::fs::read_to_string(&file).is_ok_and(|text| text.contains("\"/again\"")).then_some(())
    };
    until("a line", again).await;
    let text = std::fs::read_to_string(&file).expect("the log");
    let broken = text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_err());
    assert!(broken.count() <= 1, "the one that was cut off stands alone: {text}");
}

#[tokio::test]
async fn an_access_log_that_is_a_pipe_without_a_reader_is_refused_at_once() {
    let setup = Setup::new().config(answering("pipe", ""));
    let pipe = setup.folder().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let gateway = setup.launch();
    assert_eq!(gateway.wait_for_exit().code(), Some(1));
    gateway.wait_for_log("the access log cannot be opened");
}

/// The names and labels of all series.
async fn series(gateway: &Gateway) -> Vec<String> {
    let text = gateway.admin("GET", "/metrics").await.text();
    let series = text.lines().filter(|line| !line.starts_with('#'));
    series.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

#[tokio::test]
async fn what_clients_make_up_never_becomes_a_label() {
    let config = answering(
        "stdout",
        ", { name: mesh, address: \"127.0.0.1:0\", tls: { mode: passthrough }, tcp: { cluster: up } }",
    );
    let config = format!("{config}clusters: [ {{ name: up, endpoints: [\"127.0.0.1:1\"] }} ]\n");
    let gateway = Setup::new().config(config).start();
    let web = gateway.address("web");
    let before = series(&gateway).await;
    for number in 0..100 {
        let mut client = Client::h1(web).await;
        let made_up = format!("made-up-{number}");
        let request = client.request(&format!("MADE{number}"), &format!("/{made_up}?{made_up}"));
        let request = request.header(made_up.as_str(), &made_up).header("x-request-id", &made_up);
        let request = request.header("user-agent", &made_up).body(empty()).expect("a request");
        assert_eq!(client.call(request).await.expect("an answer").status, 200);
        let raw = format!("GET / HTTP/1.1\r\nHost: {made_up}.example\r\nConnection: close\r\n\r\n");
        assert!(weir_tests::http::raw(web, raw).await.starts_with("HTTP/1.1 200 "));
        assert!(weir_tests::http::raw(web, format!("{made_up}\r\n\r\n")).await.starts_with("HTTP/1.1 400 "));
        let name = format!("{made_up}.example");
        let mesh = gateway.address("mesh");
        tls::connect(mesh, &name, tls::client_config(None, &[])).await.expect_err("nobody is there");
    }
    let after = series(&gateway).await;
    assert!(before.len() > 50, "{before:?}");
    assert_eq!(before, after);
    assert!(!after.iter().any(|series| series.to_ascii_lowercase().contains("made")), "{after:?}");
}

#[tokio::test]
async fn scrapers_that_never_read_keep_nobody_else_waiting() {
    let gateway = Setup::new().config(answering("off", "")).start();
    let mut stuck = Vec::new();
    for _ in 0..50 {
        let mut socket = TcpStream::connect(gateway.admin_address()).await.expect("it listens");
        // More answers than the kernel takes for somebody who does not read.
        let many = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200);
        socket.write_all(many.as_bytes()).await.expect("sent");
        stuck.push(socket);
    }
    for _ in 0..20 {
        assert_eq!(gateway.admin("GET", "/metrics").await.status, 200);
        assert_eq!(get(gateway.address("web"), "/").await.text(), "answered");
    }
    for mut socket in stuck {
        let mut first = [0; 12];
        soon("an answer", socket.read_exact(&mut first)).await.expect("it was answered, too");
        assert_eq!(&first, b"HTTP/1.1 200");
    }
}
