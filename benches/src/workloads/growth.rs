//! The same request, while there is more of everything that it does not need.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::lab::{Built, Lab, free_ports};
use crate::machine::PROXY;
use crate::report::Report;
use crate::rounds::{Candidate, Plan, REQUEST, compare};
use crate::template::fill;
use crate::tools::Tools;
use crate::workloads::http::CONNECTIONS;
use crate::workloads::loads::wrk;

/// How much there is in a configuration.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Routes by prefix; the request is for the last of them.
    pub routes: usize,
    /// Clusters.
    pub clusters: usize,
    /// Plugins, each with an instance of its own.
    pub plugins: usize,
    /// Instances of the first plugin.
    pub instances: usize,
    /// Workers.
    pub workers: usize,
}

/// The filters of a listener that nobody calls: no chain may have more than 64.
const CHAIN: usize = 50;

impl Default for Config {
    fn default() -> Self {
        Self { routes: 10, clusters: 10, plugins: 1, instances: 1, workers: 1 }
    }
}

/// The path of the last route.
pub fn path(config: &Config) -> String {
    format!("/service-{}/", config.routes - 1)
}

/// Each beside a small one.
pub fn run(report: Report, tools: &Tools, built: &Built, plan: &Plan) -> anyhow::Result<Report> {
    let mut lab = Lab::start(tools, built)?;
    let few = Config::default();
    let configs = [
        ("10 routes, 10 clusters, 1 plugin", few),
        ("10,000 routes", Config { routes: 10_000, ..few }),
        ("1,000 clusters", Config { clusters: 1000, ..few }),
        ("200 plugins", Config { plugins: 200, ..few }),
    ];
    let mut candidates = Vec::new();
    for (at, (name, config)) in configs.iter().enumerate() {
        let (file, port) = write(&mut lab, config)?;
        let pid = lab.weir(&file, PROXY, port)?;
        let base = (at > 0).then_some(0);
        candidates
            .push((Candidate { name: (*name).to_owned(), pid, port, is_peer: false, base }, path(config)));
    }
    let all: Vec<Candidate> = candidates.iter().map(|(candidate, _)| candidate.clone()).collect();
    compare(report, plan, REQUEST, &all, &|candidate, duration| {
        let path = candidates.iter().find(|(known, _)| known.port == candidate.port);
        let path = path.map_or("/", |(_, path)| path.as_str());
        Ok(wrk(&format!("http://127.0.0.1:{}{path}", candidate.port), CONNECTIONS, duration)?.requests)
    })
}

/// Writes a configuration of Weir with so much in it, and its plugins. Returns it with the port of its listener.
///
/// # Errors
/// When it cannot be written.
pub fn write(lab: &mut Lab<'_>, config: &Config) -> anyhow::Result<(PathBuf, u16)> {
    let folder = lab.fresh()?;
    plugins(lab.built, config.plugins, &folder.join("plugins"))?;
    // What is not used by the request is used by listeners that nobody calls: else it would not be loaded.
    let spare: Vec<(usize, String)> = (0..config.plugins)
        .map(|n| (n, format!("plugin-{n}")))
        .chain((0..config.instances).map(|n| (0, format!("instance-{n}"))))
        .collect();
    let chains: Vec<_> = spare.chunks(CHAIN).collect();
    let (upstream, ports) = (lab.upstream("upstream")?, free_ports(2 + chains.len())?);
    let lines = |count: usize, line: &dyn Fn(usize) -> String| {
        (0..count).fold(String::new(), |mut text, number| {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{}", line(number));
            text
        })
    };
    let port = |at: usize| ports.get(at).copied().unwrap_or_default();
    let filters = |chain: &[(usize, String)]| {
        let filter =
            |(plugin, name): &(usize, String)| format!("{{ plugin: plugin-{plugin}, name: {name} }}");
        chain.iter().map(filter).collect::<Vec<_>>().join(", ")
    };
    let values = [
        ("workers", config.workers.to_string()),
        ("admin", port(1).to_string()),
        ("plain", port(0).to_string()),
        (
            "routes",
            lines(config.routes, &|n| {
                format!(
                    "        - {{ match: {{ path_prefix: /service-{n}/ }}, cluster: up-{} }}",
                    n % config.clusters
                )
            }),
        ),
        (
            "spare",
            lines(chains.len(), &|n| {
                format!(
                    "  - {{ name: spare-{n}, address: \"127.0.0.1:{}\", http: {{ filters: [{}], \
                     routes: [ {{ respond: {{ status: 200 }} }} ] }} }}",
                    port(2 + n),
                    chains.get(n).map(|chain| filters(chain)).unwrap_or_default()
                )
            }),
        ),
        (
            "clusters",
            lines(config.clusters, &|n| {
                format!("  - {{ name: up-{n}, endpoints: [\"127.0.0.1:{upstream}\"] }}")
            }),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let file = folder.join("growth.yaml");
    fill("weir/growth.yaml", &values.into(), &file)?;
    Ok((file, port(0)))
}

/// Puts so many plugins into a folder: the bench filter, each time with a custom section of its own, which makes it
/// another plugin with code of its own.
///
/// # Errors
/// When one cannot be written.
pub fn plugins(built: &Built, count: usize, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir(folder)?;
    let module = fs::read(built.plugins.join("bench-filter.wasm"))?;
    for number in 0..count {
        let mark = format!("bench{number:06}");
        // A section: id 0, its length, the length of its name, its name, anything.
        let section = [&[0, 12, 5], mark.as_bytes()].concat();
        fs::write(folder.join(format!("plugin-{number}.wasm")), [module.as_slice(), &section].concat())?;
    }
    Ok(())
}
