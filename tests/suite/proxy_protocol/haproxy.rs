//! HAProxy, whose protocol it is, on either side. Without it these tests are skipped, and say so.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;
use weir_tests::Setup;
use weir_tests::gateway::own_address;
use weir_tests::http::{Client, mirror};
use weir_tests::wait::until;

use super::gateway;

/// HAProxy that runs until it is dropped.
struct HaProxy {
    child: Child,
    _folder: TempDir,
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts HAProxy with these sections, and waits until it listens; `None` where it is not installed.
async fn haproxy(sections: &str, address: SocketAddr) -> Option<HaProxy> {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("haproxy.cfg");
    let defaults =
        "global\n  maxconn 100\ndefaults\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n";
    std::fs::write(&file, format!("{defaults}{sections}\n")).expect("it can be written");
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null());
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("SKIPPED: HAProxy cannot be started ({error}); install it to test against it");
            return None;
        }
    };
    let started = HaProxy { child, _folder: folder };
    until("HAProxy", async || TcpStream::connect(address).await.ok()).await;
    Some(started)
}

#[tokio::test]
async fn haproxy_tells_weir_who_the_client_is() {
    let mirror = mirror().await;
    for (net, option) in
        [(80, "send-proxy"), (81, "send-proxy-v2"), (82, "send-proxy-v2 proxy-v2-options crc32c")]
    {
        let weir = gateway(mirror.address, "", "");
        let front = own_address(net);
        let server = format!("  server weir {} {option}", weir.address("web"));
        let sections = format!("listen front\n  mode tcp\n  bind {front}\n{server}");
        let Some(_haproxy) = haproxy(&sections, front).await else { return };
        let socket = super::from("127.0.0.9", front).await;
        let client = socket.local_addr().expect("an address").to_string();
        let answer = Client::h1_over(socket).await.get("/").await;
        assert_eq!(answer.header("x-source"), client, "{option}");
        assert!(answer.text().contains("x-forwarded-for: 127.0.0.9\n"), "{option}: {}", answer.text());
    }
}

#[tokio::test]
async fn haproxy_is_told_by_weir_who_the_client_is() {
    let behind = own_address(83);
    let answer = "http-request return status 200 content-type text/plain lf-string \"%[src]:%[src_port] %[dst]:%[dst_port]\"";
    let sections = format!("frontend behind\n  mode http\n  bind {behind} accept-proxy\n  {answer}");
    let Some(_haproxy) = haproxy(&sections, behind).await else { return };
    for version in ["v1", "v2"] {
        let config = format!(
            "listeners:\n\
             - {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] }} }}\n\
             - {{ name: tcp, address: \"127.0.0.1:0\", tcp: {{ cluster: up }} }}\n\
             clusters: [ {{ name: up, endpoints: [\"{behind}\"], proxy_protocol: {version} }} ]"
        );
        let weir = Setup::new().config(config).start();
        for listener in ["web", "tcp"] {
            let address = weir.address(listener);
            let socket = TcpStream::connect(address).await.expect("it listens");
            let client = socket.local_addr().expect("an address");
            let answer = Client::h1_over(socket).await.get("/").await;
            assert_eq!(answer.text(), format!("{client} {address}"), "{version}, {listener}");
        }
    }
}
