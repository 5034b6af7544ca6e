//! The cases of a filter, as `weir plugin test` reads them, in a real Envoy: real sockets stand where a bed has made-up
//! ones, and what was seen is compared as there.
//!
//! Who the client is comes by the PROXY protocol or a real certificate, clusters are servers that answer as planned, and
//! the time of day is the case's. What of a case Envoy cannot be told, or does not tell, is a reason to pass over it.

mod client;
mod clock;
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use weir::config::filter::config_bytes;
use weir::config::problem::Place;
use weir::config::value::Spanned;
use weir::testbed::{
    Call, Case, CaseFile, ConnectionFacts, Difference, Expect, Left, Line, Seen, Setting, Step, TlsVersion,
    Wanted, compare, default_of, setting,
};
use weir_abi::LogLevel;

use crate::envoy::{self, free_address};
use crate::parity::cases::clock::Clock;
use crate::parity::cases::servers::Servers;
use crate::parity::envoy::{Envoy, logged, wasm};
use crate::parity::{Filter, tls};

/// What came of a case.
#[derive(Debug)]
pub enum Outcome {
    /// All is as expected.
    Same,
    /// This is not.
    Differs(Vec<Difference>),
    /// It cannot be run, for this reason.
    PassedOver(&'static str),
}

/// A case in words that Envoy understands.
struct Plan<'a> {
    filter: &'a str,
    setting: Setting,
    tcp: bool,
    steps: Vec<(ConnectionFacts, Step)>,
    refused: Option<&'a Spanned<Wanted>>,
}

/// Runs a case of a filter in the Envoy of this path.
///
/// # Panics
/// When it does not come to its end.
pub async fn run(filter: &str, file: &CaseFile, case: &Spanned<Case>, envoy: &Path) -> Outcome {
    let plan = match Plan::of(filter, file, case) {
        Ok(plan) => plan,
        Err(reason) => return Outcome::PassedOver(reason),
    };
    let servers = Servers::start(&plan).await;
    let (address, admin) = (free_address(), free_address());
    let folder = TempDir::new().expect("a folder");
    let config = plan.in_envoy(&servers, address, admin, folder.path());
    let mut clock = Clock::at(plan.setting.time.0, folder.path());
    // What is logged of a stream is to be there soon after it.
    let args = ["--file-flush-interval-msec", "20"];
    let mut envoy = Envoy::start(envoy, &config, folder, &args, &clock.variables());
    let starts = envoy.listens(address).await;
    let differences = match (plan.refused, starts) {
        (Some(refused), starts) => refusal(refused, starts, &envoy),
        (None, true) => {
            let run = Run { servers: &servers, envoy: &envoy, address, admin };
            plan.streams(&case.place, &run, &mut clock).await
        }
        (None, false) => {
            vec![Difference::trouble(&case.place, format!("it does not start: {}", errors(&envoy)))]
        }
    };
    if differences.is_empty() { Outcome::Same } else { Outcome::Differs(differences) }
}

/// What Envoy has said of its own end, and guests of theirs.
fn errors(envoy: &Envoy) -> String {
    let lines = envoy.log.lines();
    let told = lines.iter().filter(|line| line.contains("[error]") || line.contains("[critical]"));
    told.map(String::as_str).collect::<Vec<_>>().join("\n")
}

fn refusal(refused: &Spanned<Wanted>, starts: bool, envoy: &Envoy) -> Vec<Difference> {
    let said = errors(envoy);
    if !starts && refused.fits(Some(said.as_bytes())) {
        return Vec::new();
    }
    let got = if starts { "(it starts)".to_owned() } else { said };
    let (place, wanted) = (refused.place.clone(), refused.describe());
    vec![Difference { place, what: None, wanted, got, instead: None }]
}

/// All that runs for a case.
struct Run<'a> {
    servers: &'a Servers,
    envoy: &'a Envoy,
    address: SocketAddr,
    admin: SocketAddr,
}

impl<'a> Plan<'a> {
    /// # Errors
    /// Why it cannot be run.
    fn of(filter: &'a str, file: &CaseFile, case: &'a Spanned<Case>) -> Result<Self, &'static str> {
        let beside = [&case.before, &case.behind].into_iter().flatten().flatten();
        if beside.chain(&file.before).chain(&file.behind).next().is_some() {
            return Err("other filters stand beside it, and the test has one");
        }
        let streams = case.streams();
        let tcp = streams.iter().any(|step| step.data.is_some());
        let mut steps = Vec::new();
        for step in streams {
            let route = step.route.as_ref().or(case.route.as_ref()).or(file.route.as_ref());
            if route.is_some() {
                return Err("where the upstream is, the test does not choose");
            }
            let facts = step.connection.as_ref().or(case.connection.as_ref()).or(file.connection.as_ref());
            let facts = facts.cloned().unwrap_or_else(default_of);
            if let Some(tls) = &facts.tls {
                let passes = tls.version == TlsVersion::Passthrough;
                let other =
                    tls.alpn.is_some() || tls.server.is_some() || tls.server_name.is_some() && !passes;
                let named = tls.client.iter().any(|own| {
                    [&own.subject, &own.issuer, &own.sha256, &own.serial].iter().any(|fact| !fact.is_empty())
                });
                if other || named || passes && !tcp {
                    return Err("TLS and certificates are made for the test, and are as they come");
                }
            }
            steps.push((facts, step));
        }
        // A plugin without a stream is tried as what it is.
        let tcp = tcp || file.cases.iter().any(|case| case.data.is_some());
        let setting = setting(file, case);
        if !setting.shared_data.is_empty() {
            return Err("nobody but a plugin can write shared data");
        }
        let fails = |call: &Call| call.answer.fails;
        if setting.calls.iter().any(fails) && !setting.calls.iter().all(fails) {
            return Err("a cluster is there or not, for all of a case");
        }
        Ok(Self { filter, setting, tcp, steps, refused: case.refused.as_ref() })
    }

    /// The clusters that a filter can call or choose.
    fn clusters(&self) -> BTreeSet<&str> {
        let calls = self.setting.calls.iter().map(|call| call.cluster.value.as_str());
        let granted = self.setting.filter.0.grants.clusters.iter().map(|name| name.value.as_str());
        let chosen =
            self.steps.iter().filter_map(|(_, step)| match step.expect.as_ref()?.cluster.as_deref()? {
                Wanted::Is(name) => str::from_utf8(name).ok(),
                Wanted::Contains(_) | Wanted::Matches(_) | Wanted::Json(_) | Wanted::Absent => None,
            });
        calls.chain(granted).chain(chosen).collect()
    }

    /// The filter's configuration, as the plugin gets it.
    fn config(&self) -> String {
        let config = self.setting.filter.0.config.as_ref().map(|config| &config.value);
        String::from_utf8(config_bytes(config)).expect("a configuration is text")
    }

    /// Whether calls go over HTTP/2.
    fn speaks_grpc(&self) -> bool {
        self.config().contains("\"grpc\"") || self.setting.calls.iter().any(|call| call.grpc.is_some())
    }

    fn in_envoy(&self, servers: &Servers, address: SocketAddr, admin: SocketAddr, folder: &Path) -> Value {
        let name: &'static str = self.filter.to_owned().leak();
        let filter = Filter { guest: name, ..Filter::new(name, &self.config()) };
        let plugin = wasm(self.tcp, &filter, folder);
        let log = json!([{
            "name": "envoy.access_loggers.stderr",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
                "log_format": { "text_format_source": { "inline_string": format!("{ENDED} %RESPONSE_CODE_DETAILS%\n") } },
            },
        }]);
        let mut last = if self.tcp {
            envoy::tcp_proxy("up")
        } else {
            let route = json!({ "name": "test", "match": { "prefix": "/" }, "route": { "cluster": "up" } });
            envoy::http(vec![plugin.clone()], &[route])
        };
        last["typed_config"]["access_log"] = log;
        if !self.tcp {
            // As the page of the filters advises.
            last["typed_config"]["use_remote_address"] = true.into();
        }
        let chain = if self.tcp { vec![plugin, last] } else { vec![last] };
        let mut listener = envoy::listener("test", address, 1 << 20, &chain);
        listener["listener_filters"] = json!([proxy_protocol(), tls::inspector()]);
        let terminates = self
            .steps
            .iter()
            .any(|(facts, _)| facts.tls.as_ref().is_some_and(|tls| tls.version != TlsVersion::Passthrough));
        if terminates {
            for (name, text) in tls::files() {
                std::fs::write(folder.join(name), text).expect("the folder can be written");
            }
            let (mut socket, _) = tls::in_envoy(folder);
            socket["typed_config"]["require_client_certificate"] = false.into();
            // With and without TLS, as the stream says.
            let mut plain = listener["filter_chains"][0].clone();
            plain["name"] = "plain".into();
            let secured = &mut listener["filter_chains"][0];
            secured["transport_socket"] = socket;
            secured["filter_chain_match"] = json!({ "transport_protocol": "tls" });
            secured["name"] = "tls".into();
            listener["filter_chains"].as_array_mut().expect("a list").push(plain);
        }
        let clusters: Vec<Value> = servers
            .addresses()
            .map(|(name, address)| envoy::cluster_of(name, address, name != "up" && self.speaks_grpc()))
            .collect();
        json!({
            "admin": { "address": envoy::socket_address(admin) },
            "static_resources": { "listeners": [listener], "clusters": clusters },
        })
    }

    async fn streams(&self, place: &Place, run: &Run<'_>, clock: &mut Clock) -> Vec<Difference> {
        let Run { servers, envoy, address, admin } = *run;
        let mut differences = Vec::new();
        let mut lines = envoy.log.lines().len();
        for (at, (facts, step)) in self.steps.iter().enumerate() {
            clock.pass(step.after.unwrap_or_default());
            let mut seen = Seen::default();
            match (&step.request, &step.data) {
                (Some(request), _) => {
                    servers.answer(step.response.clone().unwrap_or_else(default_of));
                    seen.response = client::exchange(address, facts, request).await;
                    seen.closed = seen.response.is_none();
                }
                (None, Some(data)) => client::relay(address, facts, data, servers, &mut seen).await,
                (None, None) => continue,
            }
            let ended = envoy.log.wait_for(ENDED, at + 1);
            servers.take(&mut seen);
            let all = envoy.log.lines();
            seen.log = all.iter().skip(lines).filter_map(|line| logged(line)).map(line_of).collect();
            lines = all.len();
            let expect = step.expect.as_ref().map(|expect| self.observable(expect, &ended, &mut seen));
            let left = Stats::of(admin).await;
            differences.extend(compare(expect.as_ref(), &seen, &left, place));
        }
        differences
    }

    /// What is expected, without what Envoy does not tell of a stream that ended as a line of its log says.
    fn observable(&self, expect: &Expect, ended: &str, seen: &mut Seen) -> Expect {
        let mut expect = expect.clone();
        expect.properties.clear();
        expect.shared_data.clear();
        if self.tcp {
            expect.details = None;
        }
        // Envoy writes details without spaces.
        let said = ended.rsplit(' ').next().unwrap_or_default();
        seen.details = Some(match expect.details.as_deref() {
            Some(Wanted::Is(wanted)) if String::from_utf8_lossy(wanted).replace(' ', "_") == said => {
                String::from_utf8_lossy(wanted).into_owned()
            }
            _ => said.to_owned(),
        });
        expect
    }
}

/// Begins the line that Envoy logs at the end of a stream.
const ENDED: &str = "the stream has ended:";

fn proxy_protocol() -> Value {
    json!({
        "name": "envoy.filters.listener.proxy_protocol",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
            "allow_requests_without_proxy_protocol": false,
        },
    })
}

fn line_of((level, _, text): (&str, &str, &str)) -> Line {
    let level = match level {
        "trace" => LogLevel::Trace,
        "debug" => LogLevel::Debug,
        "warning" => LogLevel::Warn,
        "error" => LogLevel::Error,
        "critical" => LogLevel::Critical,
        _ => LogLevel::Info,
    };
    Line { level, text: text.to_owned() }
}

/// The numbers that Envoy has counted for plugins.
struct Stats(BTreeMap<String, i64>);

impl Stats {
    async fn of(admin: SocketAddr) -> Self {
        let answer = crate::http::get(admin, "/stats?filter=wasmcustom").await.text();
        let pairs = answer.lines().filter_map(|line| {
            let (name, value) = line.strip_prefix("wasmcustom.")?.split_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(pairs.collect())
    }
}

impl Left for Stats {
    fn shared_data(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn metric(&self, name: &str) -> Option<i64> {
        self.0.get(name).copied()
    }
}
