//! Idle clients: thousands of TLS connections that have asked once and say nothing more. What each takes is looked at, and
//! at the end each asks again: none may have been dropped.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustls::client::Resumption;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use crate::envoy::{self, free_address};
use crate::soak::process::{Process, Usage};
use crate::tls::{certificate, client_config, connect};

/// How long anything may take that is not the idleness itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// Handshakes, and requests, at a time.
const AT_ONCE: usize = 32;

/// Connections that come and go before anything is measured: code is in memory then, and allocators have begun.
const WARM: usize = 256;

const NAME: &str = "edge.example";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: edge.example\r\n\r\n";
/// The end of what the upstream of long runs answers.
const END: &[u8] = b"hello\n";

/// Which proxy.
#[derive(Debug, Clone, Copy)]
pub enum Proxy<'a> {
    /// A `weir` command.
    Weir(&'a Path),
    /// An Envoy.
    Envoy(&'a Path),
    /// A HAProxy.
    Haproxy(&'a Path),
}

/// What is done.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Connections.
    pub connections: usize,
    /// How long they say nothing.
    pub held: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Connections that were answered once.
    pub opened: usize,
    /// Those that were answered once more after all that time.
    pub kept: usize,
    /// What failed, by reason.
    pub failures: BTreeMap<String, usize>,
    /// What the process used before, with all connections open, and after they were idle for that long.
    pub usage: [Usage; 3],
}

impl Outcome {
    /// Resident memory for each connection while all are idle, in KiB.
    pub fn kib_each(&self) -> f64 {
        let [before, _, idle] = self.usage;
        idle.resident.saturating_sub(before.resident) as f64 / 1024.0 / self.opened.max(1) as f64
    }
}

/// A proxy with one listener that terminates TLS and forwards to an upstream, two workers, and long patience.
struct Serving {
    process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Serving {
    async fn start(proxy: Proxy<'_>, upstream: SocketAddr) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let pair = certificate(&[NAME]);
        pair.write(folder.path(), "edge").expect("it can be written");
        let write = |name: &str, text: String| -> PathBuf {
            let file = folder.path().join(name);
            std::fs::write(&file, text).expect("it can be written");
            file
        };
        let (process, address) = match proxy {
            Proxy::Weir(weir) => {
                let file = write("weir.yaml", weir_config(upstream));
                let mut command = Command::new(weir);
                command.args(["run", "--config"]).arg(file).env("XDG_RUNTIME_DIR", folder.path());
                let process = Process::start(&mut command);
                let ready = process.wait_for("ready to serve", PATIENCE);
                let line = ready.and_then(|_| process.wait_for("listening listener=\"edge\" ", PATIENCE));
                let line = line.unwrap_or_else(|| panic!("{}", process.log()));
                let (_, told) = line.rsplit_once("address=").expect("an address");
                let address = told.split(' ').next().and_then(|address| address.trim().parse().ok());
                (process, address.expect("an address"))
            }
            Proxy::Envoy(envoy) => {
                let address = free_address();
                let file = write("envoy.json", envoy_config(address, folder.path(), upstream).to_string());
                let arguments = ["--concurrency", "2", "--disable-hot-restart", "-l", "info", "-c"];
                (Process::start(Command::new(envoy).args(arguments).arg(file)), address)
            }
            Proxy::Haproxy(haproxy) => {
                let address = free_address();
                let whole = write("whole.pem", format!("{}{}", pair.cert, pair.key));
                let file = write("haproxy.cfg", haproxy_config(address, &whole, upstream));
                (Process::start(Command::new(haproxy).args(["-db", "-f"]).arg(file)), address)
            }
        };
        let listens = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let listens = tokio::time::timeout(PATIENCE, listens).await;
        assert!(listens.is_ok(), "{proxy:?} does not listen: {}", process.log());
        Self { process, address, _folder: folder }
    }

    fn usage(&self) -> Usage {
        self.process.usage().unwrap_or_default()
    }
}

/// Idle connections are kept for an hour, which is the default.
fn weir_config(upstream: SocketAddr) -> String {
    format!(
        "runtime: {{ workers: 2 }}\n\
         listeners: [ {{ name: edge, address: \"127.0.0.1:0\", \
           tls: {{ mode: terminate, certificates: [ {{ cert: edge.pem, key: edge.key }} ] }}, \
           http: {{ idle_timeout: 1h, routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{upstream}\"] }} ]\n"
    )
}

fn envoy_config(address: SocketAddr, folder: &Path, upstream: SocketAddr) -> Value {
    let routes = [json!({ "match": { "prefix": "/" }, "route": { "cluster": "up" } })];
    let mut listener = envoy::listener("edge", address, 64 << 10, &[envoy::http(Vec::new(), &routes)]);
    let file = |name: &str| json!({ "filename": folder.join(name) });
    listener["filter_chains"][0]["transport_socket"] = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": { "tls_maximum_protocol_version": "TLSv1_3" },
                "tls_certificates": [{ "certificate_chain": file("edge.pem"), "private_key": file("edge.key") }],
            },
        },
    });
    json!({ "static_resources": { "listeners": [listener], "clusters": [envoy::cluster("up", upstream)] } })
}

fn haproxy_config(address: SocketAddr, whole: &Path, upstream: SocketAddr) -> String {
    format!(
        "global\n nbthread 2\n maxconn 9900\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n timeout http-keep-alive 1h\n\
         frontend edge\n bind {address} ssl crt {} alpn h2,http/1.1 ssl-min-ver TLSv1.3\n default_backend up\n\
         backend up\n server one {upstream}\n",
        whole.display()
    )
}

type Client = TlsStream<TcpStream>;

/// Opens the connections, has them idle, and asks on each once more.
///
/// # Panics
/// When the proxy does not serve.
pub async fn run(proxy: Proxy<'_>, plan: Plan, upstream: SocketAddr) -> Outcome {
    let serving = Serving::start(proxy, upstream).await;
    let mut outcome = Outcome::default();
    drop(open(serving.address, WARM.min(plan.connections), &mut outcome.failures).await);
    let before = serving.usage();
    let clients = open(serving.address, plan.connections, &mut outcome.failures).await;
    outcome.opened = clients.len();
    let open = serving.usage();
    // The idleness itself, and no wait for anything.
    tokio::time::sleep(plan.held).await;
    outcome.usage = [before, open, serving.usage()];
    let asked = clients.into_iter().map(|mut client| async move {
        ask(&mut client).await?;
        Ok(client)
    });
    outcome.kept = some_at_once(asked, &mut outcome.failures).await.len();
    outcome
}

/// Connections, each of which has asked once.
async fn open(address: SocketAddr, count: usize, failures: &mut BTreeMap<String, usize>) -> Vec<Client> {
    let mut config = client_config(None, &["http/1.1"]);
    // Each shakes hands in full, and no client keeps what it will not need.
    config.resumption = Resumption::disabled();
    let opened = (0..count).map(|_| {
        let config = config.clone();
        async move {
            let mut client = connect(address, NAME, config).await?;
            ask(&mut client).await?;
            Ok(client)
        }
    });
    some_at_once(opened, failures).await
}

/// Does all of it, a part at a time, and keeps what came of it.
async fn some_at_once(
    work: impl Iterator<Item = impl Future<Output = Result<Client>> + Send + 'static>,
    failures: &mut BTreeMap<String, usize>,
) -> Vec<Client> {
    let (mut running, mut done) = (JoinSet::new(), Vec::new());
    let mut work = work.fuse();
    loop {
        while running.len() < AT_ONCE
            && let Some(next) = work.next()
        {
            running.spawn(async move {
                let late = |_| Error::from(ErrorKind::TimedOut);
                tokio::time::timeout(PATIENCE, next).await.map_err(late)?
            });
        }
        match running.join_next().await {
            None => return done,
            Some(ended) => match ended.expect("a client") {
                Ok(client) => done.push(client),
                Err(error) => *failures.entry(error.to_string()).or_default() += 1,
            },
        }
    }
}

/// One request, and its whole answer.
async fn ask(client: &mut Client) -> Result<()> {
    client.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(END) {
        if client.read_buf(&mut answer).await? == 0 {
            return Err(Error::other("the connection was closed"));
        }
    }
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(Error::other(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()))
}
