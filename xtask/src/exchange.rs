//! How many instructions one exchange takes. Unlike time it hardly depends on the machine, or on what else that does: two
//! runs differ by less than a tenth of a percent.
//!
//! The `weir` command runs under callgrind, with a client and an upstream outside of it. What is counted is what its worker
//! does between two dumps: neither the start nor the control plane.

mod baseline;
mod valgrind;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::cargo::{cargo, run, target};
use crate::exchange::baseline::Baseline;
use crate::exchange::valgrind::Counted;
use crate::guests;

/// Exchanges before it is counted, and those that are.
const WARM_UP: u32 = 300;
const COUNTED: u32 = 2000;

/// How long an answer may take: under callgrind everything takes fifty times as long.
const PATIENCE: Duration = Duration::from_secs(30);

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\nX-Tenant: payments\r\nX-Role: reader\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nhello world\n";

/// The bench filter, as configurations have it. The limits of CPU time are meant for one that is not slowed down.
pub const FILTER: &str =
    "{ plugin: bench-filter, cpu: 10s, cpu_per_second: 0s, cpu_per_stream: 0s, long_calls_per_second: 0s }";

/// What is counted, and the filters of its chain.
const CASES: [(&str, &str); 2] = [("no filter", ""), ("bench filter", FILTER)];

/// Counts, and compares with the baseline, or replaces that.
///
/// # Errors
/// When an exchange takes more than it may, or cannot be counted. Where there is nothing to compare with (no valgrind,
/// another compiler or architecture), it is said that nothing was compared.
pub fn check(update: bool) -> anyhow::Result<()> {
    let known = Baseline::read()?;
    let here = baseline::made_with()?;
    if !update && known.made_with != here {
        crate::say(&format!(
            "SKIPPED: instructions were not compared: the baseline is of {}, and this is {here}; whoever changes the \
             compiler runs `cargo xtask count --update`",
            known.made_with
        ));
        return Ok(());
    }
    if !valgrind::is_there() {
        crate::say(
            "SKIPPED: instructions were not counted: there is no valgrind; `apt-get install valgrind` as root installs it",
        );
        ensure!(!update, "without valgrind there is no new baseline");
        return Ok(());
    }
    run(&mut cargo(&["build", "--quiet", "--package", "weir", "--bin", "weir", "--profile", "count"]))?;
    let weir = target().join("count/weir");
    let counted = CASES.iter().map(|(name, filters)| Ok(((*name).to_owned(), count(&weir, filters)?)));
    let counted = Baseline { made_with: here, cases: counted.collect::<anyhow::Result<_>>()? };
    for (name, instructions) in &counted.cases {
        crate::say(&format!("{name}: {instructions} instructions for an exchange"));
    }
    if update { counted.write() } else { known.compare(&counted) }
}

/// The instructions of one exchange through a chain.
fn count(weir: &Path, filters: &str) -> anyhow::Result<u64> {
    let folder = Folder::new(filters, upstream()?)?;
    if !filters.is_empty() {
        folder.compile(weir)?;
    }
    let counted = Counted::start(weir, &folder.0)?;
    let mut client = TcpStream::connect(counted.address)?;
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(PATIENCE))?;
    exchanges(&mut client, WARM_UP)?;
    counted.dump()?;
    exchanges(&mut client, COUNTED)?;
    counted.dump()?;
    Ok(counted.busiest_of_last_dump()? / u64::from(COUNTED))
}

/// So many exchanges on a connection, one after the other. Nothing is allocated for one.
///
/// # Errors
/// When an answer is not 200, or does not come.
pub fn exchanges(client: &mut TcpStream, count: u32) -> anyhow::Result<()> {
    let mut buffer = [0; 4096];
    for _ in 0..count {
        client.write_all(REQUEST)?;
        let mut len = 0;
        while !buffer.get(..len).is_some_and(|answer| answer.ends_with(b"hello world\n")) {
            let read = client.read(buffer.get_mut(len..).context("a short answer")?)?;
            ensure!(read > 0, "the connection ended in an answer");
            len += read;
        }
        let answer = buffer.get(..len).unwrap_or_default();
        ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(answer));
    }
    Ok(())
}

/// An upstream that answers by itself, for as long as this process runs.
///
/// # Errors
/// When it cannot listen.
pub fn upstream() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            // It ends with its connection.
            std::thread::spawn(move || drop(answer(socket)));
        }
    });
    Ok(address)
}

/// Answers each head: no request has a body here.
fn answer(mut socket: TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let len = socket.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        head.extend_from_slice(buffer.get(..len).unwrap_or_default());
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            socket.write_all(ANSWER)?;
        }
    }
}

/// The folder of a run, below the target folder, made anew.
struct Folder(PathBuf);

impl Folder {
    fn new(filters: &str, upstream: SocketAddr) -> anyhow::Result<Self> {
        let folder = target().join("exchange");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(folder.join("plugins"))?;
        let config = format!(
            "runtime: {{ workers: 1, takeover_socket: takeover }}\n\
             access_log: \"off\"\n\
             plugins: {{ directory: plugins, cache: cache }}\n\
             listeners:\n  \
               - {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [{filters}], routes: [ {{ cluster: up }} ] }} }}\n\
             clusters: [ {{ name: up, endpoints: [\"{upstream}\"] }} ]\n"
        );
        fs::write(folder.join("weir.yaml"), config)?;
        Ok(Self(folder))
    }

    /// Puts the bench filter into the plugin directory, and its code into the cache: code for the processor that valgrind
    /// shows, made by a process that is not Weir's child, since Weir's children would be valgrind.
    fn compile(&self, weir: &Path) -> anyhow::Result<()> {
        let plugins = self.0.join("plugins");
        guests::build_bench_filter(&plugins)?;
        let module = fs::File::open(plugins.join("bench-filter.wasm"))?;
        let mut command = valgrind::command(&["--tool=none"], weir);
        command.args(["plugin", "compile", "--memory", "100000000000000", "--cpu", "600", "--cache"]);
        run(command.arg(self.0.join("cache")).stdin(module))
    }
}
