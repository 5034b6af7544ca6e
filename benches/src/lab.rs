//! Where it is measured: a folder with certificates and files, the upstreams, and the proxies.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tempfile::TempDir;
use xtask::certs::Authority;

use crate::machine;
use crate::passthrough;
use crate::process::{Processes, pinned, worker_of};
use crate::template::{self, Values};
use crate::tools::Tools;

/// What was built to be measured.
#[derive(Debug)]
pub struct Built {
    /// The `weir` command.
    pub weir: PathBuf,
    /// The folder of its plugins.
    pub plugins: PathBuf,
    /// The load generator.
    pub load: PathBuf,
}

impl Built {
    /// Looks for it.
    ///
    /// # Errors
    /// When something is not there.
    pub fn new(weir: &Path, plugins: &Path) -> anyhow::Result<Self> {
        let find = |path: &Path| {
            path.canonicalize().with_context(|| format!("no {}; run `cargo xtask bench`", path.display()))
        };
        let own = std::env::current_exe()?;
        Ok(Self {
            weir: find(weir)?,
            plugins: find(plugins)?,
            load: find(&own.with_file_name("bench-load"))?,
        })
    }
}

/// A proxy's make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// nginx.
    Nginx,
    /// HAProxy.
    HaProxy,
    /// Envoy.
    Envoy,
    /// Weir.
    Weir,
}

impl Make {
    /// What tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::HaProxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Weir => "weir",
        }
    }

    fn ending(self) -> &'static str {
        match self {
            Self::Nginx => "conf",
            Self::HaProxy => "cfg",
            Self::Envoy | Self::Weir => "yaml",
        }
    }
}

/// A proxy that runs.
#[derive(Debug)]
pub struct Proxy {
    /// Its make.
    pub make: Make,
    /// The process that does the work.
    pub pid: u32,
    ports: Values,
}

impl Proxy {
    /// The port that its configuration has by this name.
    ///
    /// # Errors
    /// When it has none.
    pub fn port(&self, name: &str) -> anyhow::Result<u16> {
        Ok(template::value(&self.ports, name)?.parse()?)
    }
}

/// The ports that configurations may name.
const PORTS: [&str; 12] = [
    "admin",
    "plain",
    "filter",
    "filters_3",
    "official",
    "stream",
    "tls_port",
    "mtls",
    "bodies",
    "passthrough",
    "bulk",
    "spare",
];

/// Everything that is running, and stops with this.
#[derive(Debug)]
pub struct Lab<'a> {
    /// What is installed.
    pub tools: &'a Tools,
    /// What was built.
    pub built: &'a Built,
    /// The processes. They end before their folder does.
    pub processes: Processes,
    /// Where everything is.
    pub folder: TempDir,
    values: Values,
    started: usize,
}

impl<'a> Lab<'a> {
    /// Makes the folder, and starts the upstreams.
    ///
    /// # Errors
    /// When that fails.
    pub fn start(tools: &'a Tools, built: &'a Built) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let mut lab =
            Self { tools, built, folder, processes: Processes::default(), values: Values::new(), started: 0 };
        let tls = lab.path("tls");
        certificates(&tls)?;
        bodies(&lab.path("www"))?;
        let ports = free_ports(4)?;
        let set = [
            ("tls", tls.display().to_string()),
            ("files", lab.path("www").display().to_string()),
            ("plugins", built.plugins.display().to_string()),
            ("filter_wasm", built.plugins.join("bench-filter.wasm").display().to_string()),
            ("official_wasm", built.plugins.join("bench-filter-official.wasm").display().to_string()),
            ("load_module", load_module(tools)),
        ];
        lab.values.extend(set.map(|(name, value)| (name.to_owned(), value)));
        let names = ["upstream", "upstream_tls", "upstream_raw", "upstream_bulk"];
        lab.values
            .extend(names.iter().zip(&ports).map(|(name, port)| ((*name).to_owned(), port.to_string())));
        lab.values.extend(passthrough::values(ports.get(2).copied().unwrap_or_default()));
        fs::write(lab.path("names.map"), passthrough::haproxy_map())?;
        lab.values.push(("folder".to_owned(), lab.folder.path().display().to_string()));
        if tools.has("nginx") {
            lab.nginx("upstream.conf", machine::LOAD, &lab.values.clone(), lab.upstream("upstream")?)?;
        }
        let (raw, bulk) = (lab.upstream("upstream_raw")?, lab.upstream("upstream_bulk")?);
        lab.load_process(machine::LOAD, &["answer", &raw.to_string()], raw)?;
        lab.load_process(machine::LOAD, &["pour", &bulk.to_string()], bulk)?;
        Ok(lab)
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The port of an upstream.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn upstream(&self, name: &str) -> anyhow::Result<u16> {
        Ok(template::value(&self.values, name)?.parse()?)
    }

    /// Starts the proxies that are installed, Weir last, each with its configuration for a family of workloads
    /// (`http`, `passthrough`).
    ///
    /// # Errors
    /// When one does not start.
    pub fn proxies(&mut self, family: &str) -> anyhow::Result<Vec<Proxy>> {
        let mut proxies = Vec::new();
        for make in [Make::Nginx, Make::HaProxy, Make::Envoy, Make::Weir] {
            let is_there = match make {
                Make::Nginx if family == "passthrough" => crate::tools::has_stream(self.tools),
                Make::Nginx => self.tools.has("nginx"),
                Make::HaProxy => self.tools.haproxy.is_some(),
                Make::Envoy => self.tools.envoy.is_some(),
                Make::Weir => true,
            };
            if is_there {
                proxies.push(self.proxy(make, family)?);
            }
        }
        Ok(proxies)
    }

    /// Starts one proxy on the proxy's core.
    ///
    /// # Errors
    /// When it does not start.
    pub fn proxy(&mut self, make: Make, family: &str) -> anyhow::Result<Proxy> {
        let template = format!("{}/{family}.{}", make.name(), make.ending());
        let numbers = free_ports(PORTS.len())?;
        let ports: Values =
            PORTS.iter().zip(numbers).map(|(name, port)| ((*name).to_owned(), port.to_string())).collect();
        let values: Values = ports.iter().chain(&self.values).cloned().collect();
        let first = if family == "passthrough" { "passthrough" } else { "plain" };
        let port = template::value(&ports, first)?.parse()?;
        let pid = match make {
            Make::Nginx => self.nginx(&template, machine::PROXY, &values, port)?,
            Make::HaProxy => {
                let file = self.fill(&template, &values)?;
                let mut command = pinned(machine::PROXY, Path::new("haproxy"));
                self.processes.start(command.arg("-db").arg("-f").arg(file), port)?
            }
            Make::Envoy => {
                let Some(envoy) = &self.tools.envoy else { bail!("Envoy is not installed") };
                let mut command = pinned(machine::PROXY, envoy);
                command.args(["--concurrency", "1", "--log-level", "error", "--disable-hot-restart", "-c"]);
                command.arg(self.fill(&template, &values)?);
                self.processes.start(&mut command, port)?
            }
            Make::Weir => {
                let file = self.fill(&template, &values)?;
                self.weir(&file, machine::PROXY, port)?
            }
        };
        Ok(Proxy { make, pid, ports })
    }

    /// Starts Weir with a configuration, on some cores.
    ///
    /// # Errors
    /// When it does not start.
    pub fn weir(&mut self, config: &Path, cores: &str, port: u16) -> anyhow::Result<u32> {
        let mut command = pinned(cores, &self.built.weir);
        command.args(["run", "--config"]).arg(config).env("WEIR_LOG", "error");
        self.processes.start(&mut command, port)
    }

    /// Starts the load generator as something that listens.
    ///
    /// # Errors
    /// When it does not start.
    pub fn load_process(&mut self, core: &str, args: &[&str], port: u16) -> anyhow::Result<u32> {
        self.processes.start(pinned(core, &self.built.load).args(args), port)
    }

    /// A new folder of its own for a process.
    pub fn fresh(&mut self) -> anyhow::Result<PathBuf> {
        self.started += 1;
        let folder = self.path(&format!("process-{}", self.started));
        fs::create_dir(&folder)?;
        Ok(folder)
    }

    fn nginx(&mut self, template: &str, core: &str, values: &Values, port: u16) -> anyhow::Result<u32> {
        let file = self.fill(template, values)?;
        let mut command = pinned(core, Path::new("nginx"));
        command.arg("-p").arg(file.with_file_name("")).arg("-c").arg(&file).args(["-e", "stderr"]);
        worker_of(self.processes.start(&mut command, port)?)
    }

    fn fill(&mut self, template: &str, values: &Values) -> anyhow::Result<PathBuf> {
        let name = Path::new(template).file_name().unwrap_or_default();
        let file = self.fresh()?.join(name);
        template::fill(template, values, &file)?;
        Ok(file)
    }
}

fn load_module(tools: &Tools) -> String {
    tools.stream_module.as_ref().map_or_else(String::new, |file| format!("load_module {};", file.display()))
}

/// One certificate of the authority for every proxy, one for the upstream, one for the load: all P-256.
fn certificates(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir(folder)?;
    let authority = Authority::new("bench")?;
    fs::write(folder.join("ca.pem"), authority.pem())?;
    let names = [
        ("proxy", "proxy.bench.internal"),
        ("upstream", "upstream.bench.internal"),
        ("load", "load.bench.internal"),
    ];
    for (file, name) in names {
        let uri = format!("spiffe://bench.internal/{file}");
        let certificate = authority.sign(name, &[name, &uri])?;
        certificate.write(folder, file)?;
        // As HAProxy wants it.
        fs::write(
            folder.join(format!("{file}.both.pem")),
            format!("{}{}", certificate.cert, certificate.key),
        )?;
    }
    Ok(())
}

/// The files that are bodies. What they hold does not matter to anybody; nothing here compresses.
fn bodies(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder.join("files"))?;
    for (name, len) in [("64k", 64 << 10), ("10m", 10 << 20)] {
        let file = folder.join("files").join(name);
        fs::write(&file, vec![b'x'; len])?;
        File::open(file)?.sync_all()?;
    }
    Ok(())
}

/// Ports that were free a moment ago, no two the same.
///
/// # Errors
/// When there are none.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    Ok(listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<std::io::Result<_>>()?)
}
