//! `weir check`: everything that a start would read, and everything that would be in its way, at once.

mod plugin_configs;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::config::Config;
use crate::config::filter::Filter;
use crate::config::listener::{Listener, Service};
use crate::config::problem::{Place, Problem, Problems};
use crate::net::listen;
use crate::plugin::engine::PluginEngine;
use crate::plugin::library::Loaded;
use crate::plugin::requests::Requests;
use crate::plugin::services::Services;
use crate::reload::plugins::Shelf;
use crate::reload::prepare::{self, start_all};
use crate::reload::status::{Status, lock};
use crate::reload::used_plugins;
use crate::snapshot::Making;
use crate::telemetry::metrics::Registry;
use crate::telemetry::sink::Losses;

/// What a check found.
#[derive(Debug, Default)]
pub struct Findings {
    /// What a start would fail for.
    pub problems: Problems,
    /// What it would not, and what an operator may want to know nevertheless.
    pub notes: Vec<String>,
    /// What was looked at.
    pub seen: Seen,
}

/// How much was looked at.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    /// Listeners.
    pub listeners: usize,
    /// Clusters.
    pub clusters: usize,
    /// Filters that were tried.
    pub filters: usize,
}

impl Findings {
    /// For scripts.
    pub fn to_json(&self) -> Json {
        let show = |problem: &Problem| {
            json!({
                "file": problem.file.display().to_string(),
                "line": problem.at.line,
                "column": problem.at.column,
                "field": problem.field,
                "message": problem.message,
            })
        };
        json!({
            "good": self.problems.0.is_empty(),
            "problems": self.problems.0.iter().map(show).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }

    /// Adds what a later stage found. What it says of a field that is known to be wrong, or of a value that only stands
    /// in for such a one and has no place of its own, is a consequence.
    fn add(&mut self, found: impl IntoIterator<Item = Problem>) {
        for problem in found {
            let known = &self.problems.0;
            let stand_in = problem.at.line == 0 && !known.is_empty();
            if !stand_in && known.iter().all(|known| known.field != problem.field) {
                self.problems.0.push(problem);
            }
        }
    }
}

/// Checks a configuration file.
///
/// # Errors
/// When the check itself cannot be done.
pub fn check(file: &Path) -> anyhow::Result<Findings> {
    let (config, problems) = Config::examine(file);
    let mut findings = Findings { problems, ..Findings::default() };
    if let Some(config) = config {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(check_parts(&Arc::new(config), &mut findings))?;
    }
    findings.problems.0.sort_by_key(|problem| problem.at);
    Ok(findings)
}

/// What the file alone does not tell: certificates, plugins, ports.
async fn check_parts(config: &Arc<Config>, findings: &mut Findings) -> anyhow::Result<()> {
    findings.add(prepare::access_log(config, &Losses::default()).err());
    check_ports(config, findings);
    let engine = PluginEngine::new()?;
    let shelf = match Shelf::open(config, engine.engine())? {
        Ok(shelf) => shelf,
        Err(problem) => {
            findings.add([problem]);
            // Without a directory there is no plugin, and that was just said.
            return Ok(());
        }
    };
    let status = Status::new();
    findings.notes.extend(shelf.caution());
    while shelf.load(&status, &used_plugins(config)).await? {}
    let (made, misfits) = {
        let library = lock(&status.library);
        note_unused(config, &library, findings);
        let services = Services::new(Registry::new(1), Arc::clone(engine.pulse()));
        let plugins = library.all_serving();
        note_missing_grants(config, &plugins, findings);
        let misfits = plugin_configs::problems(config, &plugins);
        let made = Making {
            config,
            plugins: &plugins,
            library: &library,
            before: None,
            services: &services,
            access_log: None,
        }
        .run();
        (made, misfits)
    };
    findings.add(made.problems);
    // What is not valid now is served nevertheless.
    let concerns = made.snapshot.concerns().into_iter();
    findings.notes.extend(concerns.map(|concern| format!("{}: {}", concern.owner, concern.reason)));
    findings.seen.listeners = made.snapshot.listeners.len();
    findings.seen.clusters = made.snapshot.clusters.len();
    findings.seen.filters = made.new_vms.len();
    let (instances, failures) = start_all(&made.snapshot, made.new_vms, 1).await;
    let failures = failures.iter().map(|failure| failure.problem(config));
    findings.add(failures.filter(|failure| !plugin_configs::explain(&misfits, &failure.field)));
    findings.add(misfits);
    // Instances go before the engine that they run on.
    drop(instances);
    Ok(())
}

/// A file that is no plugin stops nothing as long as nobody uses it.
fn note_unused(config: &Config, library: &crate::plugin::library::Library, findings: &mut Findings) {
    let used = used_plugins(config);
    for (name, plugin) in library.plugins().filter(|(name, _)| !used.contains(*name)) {
        if let Some(reason) = plugin.versions().next().and_then(|version| version.reason.as_deref()) {
            findings.notes.push(format!("plugin `{name}` is not used, and would be refused: {reason}"));
        }
    }
}

/// What plugins ask for and are not granted. They are served without it: it may be meant.
fn note_missing_grants(config: &Config, plugins: &BTreeMap<String, Loaded>, findings: &mut Findings) {
    for filter in config.sections.listeners.iter().flat_map(filters_of) {
        let Some(loaded) = plugins.get(filter.plugin.as_str()) else { continue };
        let (name, plugin) = (&filter.name().value, &filter.plugin.value);
        let note = match Requests::of(&loaded.bytes) {
            Ok(None) => continue,
            Ok(Some(requests)) => match requests.missing(Some(&filter.grants)) {
                missing if missing.is_empty() => continue,
                missing => format!(
                    "filter `{name}` is not granted what plugin `{plugin}` asks for; if it is to have it: grants: {{ {} }}",
                    missing.join(", ")
                ),
            },
            Err(reason) => format!("plugin `{plugin}`: {reason}"),
        };
        let line = filter.plugin.place.at.line;
        findings.notes.push(format!("{}:{line}: {note}", config.file.display()));
    }
}

fn filters_of(listener: &Listener) -> impl Iterator<Item = &Filter> {
    let http = match &listener.service {
        Service::Http(http) => http.filters.as_slice(),
        Service::Tcp { .. } => &[],
    };
    listener.filters.iter().chain(http)
}

/// The addresses that cannot be bound. Those that the Weir holds that runs this very file will be its successor's.
fn check_ports(config: &Config, findings: &mut Findings) {
    let admin = config.sections.admin.as_ref().map(|admin| &admin.address);
    let all = config.sections.listeners.iter().map(|listener| &listener.address).chain(admin);
    let taken: Vec<(&Place, SocketAddr, std::io::Error)> = all
        .filter_map(|address| Some((&address.place, address.value, listen::probe(address.value).err()?)))
        .collect();
    if taken.is_empty() {
        return;
    }
    let held = admin.and_then(|admin| held_by_own(&config.file, admin.value)).unwrap_or_default();
    for (place, address, error) in taken {
        if held.contains(&address) {
            findings.notes.push(format!("{address} is held by the Weir that runs this configuration now"));
        } else {
            findings.add([config.problem(place, error.to_string())]);
        }
    }
}

/// The addresses of the Weir that runs `file`, when there is one, by its admin API.
fn held_by_own(file: &Path, admin: SocketAddr) -> Option<BTreeSet<SocketAddr>> {
    let running = ask(admin, "/config")?;
    let running = Path::new(running.get("file")?.as_str()?).canonicalize().ok()?;
    if running != file.canonicalize().ok()? {
        return None;
    }
    let listeners = ask(admin, "/listeners")?;
    let addresses = listeners.get("listeners")?.as_array()?.iter();
    let addresses = addresses.filter_map(|listener| listener.get("address")?.as_str()?.parse().ok());
    Some(addresses.chain([admin]).collect())
}

/// One GET to an admin API.
fn ask(admin: SocketAddr, path: &str) -> Option<Json> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let mut socket = TcpStream::connect_timeout(&admin, PATIENCE).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    socket
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = String::new();
    // Whoever listens there may be anybody.
    socket.take(16 << 20).read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}
