//! Rotations under load: pairs are replaced as fast as they are taken up, on a listener, towards a cluster, and behind
//! that, while clients shake hands all the time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::{ClientConfig, HandshakeKind};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::gateway::own_address;
use crate::soak::process::{Process, Usage};
use crate::tls::{authority, certificate, client_config, connect};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

const EDGE: &str = "edge.example";
const OWN: &str = "spiffe://mesh.internal/edge";
const INNER: &str = "spiffe://mesh.internal/inner";

/// How it is done.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Rotations of all three pairs.
    pub rotations: u32,
    /// Clients, each with one visit after the other.
    pub clients: u32,
    /// The distance of a client's visits.
    pub rhythm: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self { rotations: 5000, clients: 16, rhythm: Duration::from_millis(20) }
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Rotations that were seen to be taken up.
    pub rotations: u32,
    /// Visits whose handshake was a full one, that resumed a session, and those that had Weir shake hands with a cluster.
    pub visits: [u64; 3],
    /// How often visits failed, by reason.
    pub failures: BTreeMap<String, usize>,
    /// How long it took until a pair was shown, in order of length.
    pub taken_up: Vec<Duration>,
    /// What the process used before and after.
    pub usage: [Usage; 2],
}

impl Outcome {
    /// What must not have been.
    pub fn breaches(&self, plan: Plan) -> Vec<String> {
        let mut breaches = Vec::new();
        if !self.failures.is_empty() {
            breaches.push(format!("visits failed: {:?}", self.failures));
        }
        if self.rotations < plan.rotations {
            breaches.push(format!("{} of {} rotations were taken up", self.rotations, plan.rotations));
        }
        if self.visits.iter().any(|visits| *visits < u64::from(plan.rotations)) {
            breaches.push(format!("there was little load: {:?} visits", self.visits));
        }
        breaches
    }
}

/// A Weir whose pairs are in a folder of their own, behind a link.
struct Rotating {
    process: Process,
    folder: TempDir,
    /// It is spoken to through TLS, and in the clear with TLS behind it.
    addresses: [SocketAddr; 2],
    version: u32,
}

impl Rotating {
    fn start(weir: &Path) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        std::fs::write(folder.path().join("ca.pem"), authority().pem()).expect("it can be written");
        let inner = own_address(84);
        let own = |name: &str| format!("cert: live/{name}.pem, key: live/{name}.key");
        let config = format!(
            "runtime: {{ workers: 2 }}\n\
             listeners:\n\
             - {{ name: edge, address: \"127.0.0.1:0\", tls: {{ mode: terminate, certificates: [ {{ {} }} ] }}, \
                 http: {{ routes: [ {{ respond: {{ status: 200, body: here }} }} ] }} }}\n\
             - {{ name: relay, address: \"127.0.0.1:0\", tcp: {{ cluster: inner }} }}\n\
             - {{ name: inner, address: \"{inner}\", tls: {{ mode: terminate, certificates: [ {{ {} }} ], \
                 client_ca: ca.pem, client_certificate: required }}, \
                 http: {{ routes: [ {{ respond: {{ status: 200, body: here }} }} ] }} }}\n\
             clusters: [ {{ name: inner, endpoints: [\"{inner}\"], tls: {{ ca: ca.pem, {}, verify_identity: [\"{INNER}\"] }} }} ]\n",
            own("edge"),
            own("inner"),
            own("own")
        );
        let file = folder.path().join("weir.yaml");
        std::fs::write(&file, config).expect("it can be written");
        let rotated = |process, addresses| Self { process, folder, addresses, version: 0 };
        // The first pairs come before the process.
        std::fs::create_dir(rotated_folder(&file, 0)).expect("a folder");
        write_pairs(&rotated_folder(&file, 0));
        link(&file, 0);
        let process = Process::start(Command::new(weir).args(["run", "--config"]).arg(&file));
        process.wait_for("ready to serve", PATIENCE).unwrap_or_else(|| panic!("{}", process.log()));
        let addresses = ["edge", "relay"].map(|name| {
            let line = process.wait_for(&format!("listening listener=\"{name}\" "), PATIENCE);
            let line = line.unwrap_or_else(|| panic!("{}", process.log()));
            let (_, address) = line.rsplit_once("address=").expect("an address");
            address.split(' ').next().and_then(|address| address.trim().parse().ok()).expect("an address")
        });
        rotated(process, addresses)
    }

    /// Replaces all pairs: at once, as Kubernetes does it, or file by file, with halves in between. Returns the
    /// certificate of the listener.
    fn rotate(&mut self) -> Vec<u8> {
        self.version += 1;
        let file = self.folder.path().join("weir.yaml");
        let next = rotated_folder(&file, self.version);
        std::fs::create_dir(&next).expect("a folder");
        let shown = write_pairs(&next);
        if self.version.is_multiple_of(2) {
            link(&file, self.version);
        } else {
            let live = self.folder.path().join("live");
            for entry in std::fs::read_dir(&next).expect("it is there") {
                let from = entry.expect("an entry").path();
                let to = live.join(from.file_name().expect("a name"));
                std::fs::rename(from, to).expect("a rename");
            }
        }
        if let Some(old) = self.version.checked_sub(3) {
            // What is not live any more; where files were moved out of it, it is.
            let _ = std::fs::remove_dir_all(rotated_folder(&file, old));
        }
        shown
    }
}

fn rotated_folder(file: &Path, version: u32) -> std::path::PathBuf {
    file.with_file_name(format!("version-{version}"))
}

fn link(file: &Path, version: u32) {
    let next = file.with_file_name("next");
    std::os::unix::fs::symlink(rotated_folder(file, version), &next).expect("a link");
    std::fs::rename(next, file.with_file_name("live")).expect("a rename");
}

/// Writes a pair for each who shows one; what the listener shows.
fn write_pairs(folder: &Path) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let [edge, own, inner] = [EDGE, OWN, INNER].map(|name| certificate(&[name]));
    for (name, pair) in [("edge", &edge), ("own", &own), ("inner", &inner)] {
        pair.write(folder, name).expect("it can be written");
    }
    CertificateDer::from_pem_slice(edge.cert.as_bytes()).expect("PEM").to_vec()
}

/// Rotates under load.
///
/// # Panics
/// When the harness fails.
pub async fn run(weir: &Path, plan: Plan) -> Outcome {
    let mut weir = Rotating::start(weir);
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..plan.clients)
        .map(|number| {
            let client = Client { addresses: weir.addresses, rhythm: plan.rhythm, number };
            tokio::spawn(client.run(Arc::clone(&over)))
        })
        .collect();
    let mut outcome = Outcome::default();
    let mut usage = weir.process.usage().unwrap_or_default();
    for round in 0..plan.rotations {
        let wanted = weir.rotate();
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            match visit(weir.addresses[0], &client_config(None, &[])).await {
                Ok((_, shown)) if shown == wanted => {
                    outcome.rotations += 1;
                    outcome.taken_up.push(begun.elapsed());
                    break;
                }
                Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => *outcome.failures.entry(error.to_string()).or_default() += 1,
            }
        }
        // What is made once is no leak.
        if round == plan.rotations / 10 {
            usage = weir.process.usage().unwrap_or_default();
        }
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        let (visits, failures) = client.await.expect("a client of the load");
        outcome.visits.iter_mut().zip(visits).for_each(|(all, own)| *all += own);
        for (reason, count) in failures {
            *outcome.failures.entry(reason).or_default() += count;
        }
    }
    outcome.taken_up.sort();
    outcome.usage = [usage, weir.process.usage().unwrap_or_default()];
    outcome
}

/// One client: it visits the listener, with new sessions and with those that it was given, or what is behind it.
struct Client {
    addresses: [SocketAddr; 2],
    rhythm: Duration,
    number: u32,
}

impl Client {
    async fn run(self, over: Arc<AtomicBool>) -> ([u64; 3], BTreeMap<String, usize>) {
        let (mut visits, mut failures) = ([0; 3], BTreeMap::new());
        let mut rhythm = tokio::time::interval(self.rhythm);
        rhythm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let returning = client_config(None, &[]);
        for round in self.number.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            rhythm.tick().await;
            let config = if round % 3 == 0 { client_config(None, &[]) } else { returning.clone() };
            let visited = if round % 2 == 0 {
                let visited = visit(self.addresses[0], &config).await;
                visited.map(|(kind, _)| usize::from(kind == HandshakeKind::Resumed))
            } else {
                behind(self.addresses[1]).await.map(|()| 2)
            };
            match visited {
                Ok(kind) => visits[kind] += 1,
                Err(error) => *failures.entry(error.to_string()).or_default() += 1,
            }
        }
        (visits, failures)
    }
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: edge.example\r\nconnection: close\r\n\r\n";

/// One handshake and one request; how hands were shaken, and the certificate that was shown.
async fn visit(address: SocketAddr, config: &ClientConfig) -> std::io::Result<(HandshakeKind, Vec<u8>)> {
    let visit = async {
        let mut stream = connect(address, EDGE, config.clone()).await?;
        stream.write_all(REQUEST).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        is_good(&answer)?;
        let (_, session) = stream.get_ref();
        let shown = session.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
        Ok((session.handshake_kind().unwrap_or(HandshakeKind::Full), shown.unwrap_or_default()))
    };
    in_time(visit).await
}

/// One request in the clear, for which Weir shakes hands with its cluster.
async fn behind(address: SocketAddr) -> std::io::Result<()> {
    let visit = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(REQUEST).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        is_good(&answer)
    };
    in_time(visit).await
}

async fn in_time<T>(work: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    tokio::time::timeout(PATIENCE, work).await.map_err(late)?
}

fn is_good(answer: &str) -> std::io::Result<()> {
    if answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("here") {
        return Ok(());
    }
    Err(std::io::Error::other(format!("answered {:?}", answer.lines().next().unwrap_or_default())))
}
