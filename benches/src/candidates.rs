//! Who runs: nginx, Weir without a filter, Weir with three, each in front of the same upstream.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

/// A proxy that is measured.
#[derive(Debug)]
pub struct Candidate {
    /// What the table calls it.
    pub name: &'static str,
    /// Where it listens.
    pub port: u16,
    /// The process that does the work.
    pub pid: u32,
}

/// All candidates and their upstream, running.
#[derive(Debug)]
pub struct Bench {
    /// The candidates; the first is what the others are compared with.
    pub candidates: Vec<Candidate>,
    processes: Vec<Child>,
    folder: TempDir,
}

impl Bench {
    /// Starts everything.
    ///
    /// # Errors
    /// When something is not installed, or does not start.
    pub fn start(weir: &Path, plugins: &Path) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let mut bench = Self { candidates: Vec::new(), processes: Vec::new(), folder };
        let upstream = free_port()?;
        bench.nginx("upstream", 1, &UPSTREAM.replace("PORT", &upstream.to_string()), upstream)?;
        let port = free_port()?;
        let proxy = NGINX.replace("PORT", &port.to_string()).replace("UPSTREAM", &upstream.to_string());
        let pid = bench.nginx("proxy", 0, &proxy, port)?;
        bench.candidates.push(Candidate { name: "nginx", port, pid });
        let per_stream = format!("{FILTER}, isolation: stream }}");
        let one = format!("{FILTER} }}");
        for (name, filters) in [
            ("weir, no filter", ""),
            ("weir, one filter", &one),
            ("weir, one filter, isolation: stream", &per_stream),
            ("weir, three filters", FILTERS),
        ] {
            let port = free_port()?;
            let pid = bench.weir(name, weir, plugins, filters, port, upstream)?;
            bench.candidates.push(Candidate { name, port, pid });
        }
        Ok(bench)
    }

    fn nginx(&mut self, name: &str, core: u32, config: &str, port: u16) -> anyhow::Result<u32> {
        let folder = self.folder.path().join(name);
        fs::create_dir(&folder)?;
        let file = folder.join("nginx.conf");
        fs::write(&file, config)?;
        let mut command = pinned(core, Path::new("nginx"));
        command.arg("-p").arg(&folder).arg("-c").arg(&file).args(["-e", "stderr"]);
        let pid = self.spawn(&mut command, port).context("nginx does not start; is it installed?")?;
        // The master's only child is the worker.
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        Ok(children.split_whitespace().next().and_then(|child| child.parse().ok()).unwrap_or(pid))
    }

    fn weir(
        &mut self,
        name: &str,
        weir: &Path,
        plugins: &Path,
        filters: &str,
        port: u16,
        upstream: u16,
    ) -> anyhow::Result<u32> {
        let folder = self.folder.path().join(name);
        fs::create_dir(&folder)?;
        let plugins = plugins
            .canonicalize()
            .with_context(|| format!("no {}; run cargo xtask build", plugins.display()))?;
        let config = WEIR
            .replace("PLUGINS", &plugins.display().to_string())
            .replace("PORT", &port.to_string())
            .replace("UPSTREAM", &upstream.to_string())
            .replace("FILTERS", filters);
        let file = folder.join("weir.yaml");
        fs::write(&file, config)?;
        self.spawn(pinned(0, weir).args(["run", "--config"]).arg(&file).env("WEIR_LOG", "error"), port)
            .with_context(|| format!("{} does not start; run cargo xtask build", weir.display()))
    }

    fn spawn(&mut self, command: &mut Command, port: u16) -> anyhow::Result<u32> {
        let child = command.stdin(Stdio::null()).spawn()?;
        let pid = child.id();
        self.processes.push(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = self.processes.last_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > deadline {
                bail!("nobody listens on port {port}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(pid)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for child in &mut self.processes {
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
                // One that is gone needs no signal.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            let _ = child.wait();
        }
    }
}

fn pinned(core: u32, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

const UPSTREAM: &str = "daemon off; worker_processes 1; pid nginx.pid; error_log stderr crit;
events { worker_connections 4096; }
http {
    access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
    server { listen 127.0.0.1:PORT backlog=4096; location / { default_type text/plain; return 200 \"hello world\\n\"; } }
}
";

const NGINX: &str = "daemon off; worker_processes 1; pid nginx.pid; error_log stderr crit;
events { worker_connections 4096; }
http {
    access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
    upstream up { server 127.0.0.1:UPSTREAM; keepalive 256; keepalive_requests 1000000000; }
    server {
        listen 127.0.0.1:PORT backlog=4096;
        location / { proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\"; }
    }
}
";

const WEIR: &str = "runtime: { workers: 1 }
plugins: { directory: \"PLUGINS\", cache: cache }
listeners:
  - { name: web, address: \"127.0.0.1:PORT\", http: { filters: [ FILTERS ], routes: [ { cluster: up } ] } }
clusters:
  - { name: up, endpoints: [\"127.0.0.1:UPSTREAM\"] }
";

/// A header that is set on the way in. What is open here is closed where it is used.
const FILTER: &str = "{ plugin: header-rewrite, name: in, config: { request: { set: { x-team: payments }, remove: [x-debug] } }";

/// Rules that look at three things, a header that is set on the way in, and one on the way out. (`sni-router` has
/// no part in plain HTTP.)
const FILTERS: &str = "{ plugin: authz, config: { rules: [ { deny: [\"*\"], path_prefix: /admin }, \
    { allow: [\"*\"], methods: [GET], path_prefix: / } ] } }, \
    { plugin: header-rewrite, name: in, config: { request: { set: { x-team: payments }, remove: [x-debug] } } }, \
    { plugin: header-rewrite, name: out, config: { response: { set: { x-served-by: weir }, remove: [x-internal] } } }";
