//! Sockets that a service manager passes, as systemd does.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use weir_tests::Setup;
use weir_tests::guests::weir;
use weir_tests::http::{get, read_head};

/// A process that is started as a service manager would, with these sockets; the second one's name comes from `names`.
fn activated(
    setup: &Setup,
    sockets: [TcpListener; 2],
    names: &str,
) -> (std::process::Child, BufReader<impl std::io::Read>) {
    let [first, second] = sockets.map(OwnedFd::from);
    let script =
        "LISTEN_PID=$$; export LISTEN_PID; exec \"$0\" run --config \"$1\" 3<&0 4<&1 </dev/null >/dev/null";
    let mut child = Command::new("/bin/sh")
        .args(["-c", script])
        .arg(weir())
        .arg(setup.write_config())
        .env("LISTEN_FDS", "2")
        .env("LISTEN_FDNAMES", names)
        .env("XDG_RUNTIME_DIR", setup.folder())
        .stdin(first)
        .stdout(second)
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell");
    let log = BufReader::new(child.stderr.take().expect("it is piped"));
    (child, log)
}

#[tokio::test]
async fn sockets_of_a_service_manager_are_accepted_from_and_keep_what_waits_between_two_processes() {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let sockets = [0; 2].map(|_| TcpListener::bind(any).expect("a port"));
    let [by_address, by_name] = sockets.each_ref().map(|socket| socket.local_addr().expect("an address"));
    let respond =
        |body: &str| format!("http: {{ routes: [ {{ respond: {{ status: 200, body: {body} }} }} ] }}");
    let setup = Setup::new().config(format!(
        "runtime: {{ workers: 3 }}\naccess_log: off\nlisteners: [ {{ name: one, address: \"{by_address}\", {} }}, \
           {{ name: two, address: \"127.0.0.1:0\", {} }} ]",
        respond("first"),
        respond("second")
    ));
    let again = sockets.each_ref().map(|socket| socket.try_clone().expect("a descriptor"));
    for sockets in [sockets, again] {
        // From the second time on, somebody asks before anybody is there.
        let mut early = TcpStream::connect(by_address).await.expect("it listens");
        early.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
        let (mut child, mut log) = activated(&setup, sockets, "whatever:two");
        let head = read_head(&mut early).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        for _ in 0..10 {
            assert_eq!(get(by_address, "/").await.text(), "first");
            assert_eq!(get(by_name, "/").await.text(), "second");
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM)
            .expect("it runs");
        let mut lines = String::new();
        while log.read_line(&mut lines).expect("a log") > 0 {}
        assert!(child.wait().expect("it ends").success(), "{lines}");
    }
}
