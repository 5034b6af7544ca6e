//! A scenario in Weir.

use crate::guests;
use crate::parity::upstreams::Upstreams;
use crate::parity::{Filter, METADATA, NODE, Scenario, Transcript, client, tls};
use crate::puppet::FOREIGN_FUNCTIONS;
use crate::wait::until;
use crate::{Gateway, Setup};

/// Runs a scenario.
///
/// # Panics
/// When it does not come to its end.
pub async fn run(scenario: &Scenario) -> Transcript {
    run_with(scenario, &serde_json::Map::new()).await
}

/// Runs a scenario with filters that have further settings.
///
/// # Panics
/// As [`run`].
pub async fn run_with(
    scenario: &Scenario,
    settings: &serde_json::Map<String, serde_json::Value>,
) -> Transcript {
    let upstreams = Upstreams::start(scenario).await;
    let gateway = start(scenario, &upstreams, settings);
    let client = client::run(scenario, gateway.address("web")).await;
    until("the end of every stream", async || scenario.is_over(&log(&gateway)).then_some(())).await;
    Transcript::new(client, upstreams.seen().await, log(&gateway))
}

/// What guests logged: `filter: line`.
fn log(gateway: &Gateway) -> Vec<String> {
    let line = |line: &str| {
        let (message, labels) = line.split_once(" plugin=")?;
        let filter = labels.split_once("filter=\"")?.1.split('"').next()?;
        let (_time, rest) = message.split_once(' ')?;
        let (_level, message) = rest.trim_start().split_once(' ')?;
        Some(format!("{filter}: {message}"))
    };
    gateway.log().lines().filter_map(line).collect()
}

fn start(
    scenario: &Scenario,
    upstreams: &Upstreams,
    settings: &serde_json::Map<String, serde_json::Value>,
) -> Gateway {
    let mut filters: Vec<serde_json::Value> = scenario.filters.iter().map(filter).collect();
    filters.iter_mut().filter_map(|filter| filter.as_object_mut()).for_each(|filter| {
        filter.extend(settings.clone());
    });
    let service = if scenario.tcp {
        serde_json::json!({ "filters": filters, "tcp": { "cluster": "up" } })
    } else {
        serde_json::json!({ "http": {
            "filters": filters,
            "max_buffered_body": format!("{}KiB", scenario.buffer / 1024),
            "routes": [
                { "name": "rerouted", "match": { "path_prefix": "/rerouted" }, "cluster": "other" },
                { "name": "main", "cluster": "up", "metadata": METADATA.clone() },
            ],
        } })
    };
    let mut listener =
        serde_json::json!({ "name": "web", "address": "127.0.0.1:0", "metadata": METADATA.clone() });
    for (key, value) in service.as_object().expect("a mapping") {
        listener[key] = value.clone();
    }
    let mut up = serde_json::json!({ "name": "up", "endpoints": [upstreams.up.address.to_string()], "metadata": METADATA.clone() });
    if scenario.tls {
        listener["tls"] = serde_json::json!({
            "mode": "terminate",
            "certificates": [{ "cert": "own.pem", "key": "own.key" }],
            "client_ca": "ca.pem",
            "client_certificate": "required",
            // In Envoy any host is answered on any connection.
            "authority": "any",
        });
        up["tls"] =
            serde_json::json!({ "ca": "ca.pem", "cert": "own.pem", "key": "own.key", "sni": tls::NAMES.1 });
    }
    // Calls of guests go over HTTP/2, where gRPC is spoken.
    let protocol = if scenario.other.grpc_echo || scenario.other.silent { "http2" } else { "http1" };
    let config = serde_json::json!({
        "node": NODE.clone(),
        "runtime": { "workers": 1 },
        "listeners": [listener],
        "clusters": [
            up,
            { "name": "other", "endpoints": [upstreams.other.address.to_string()], "protocol": protocol },
            { "name": "nowhere", "endpoints": [upstreams.nowhere.to_string()], "protocol": protocol },
        ],
        // The guests are compiled once for all scenarios.
        "plugins": { "directory": "plugins", "cache": xtask::cargo::target().join("parity/cache") },
        "access_log": "stdout",
        "admin": { "address": "127.0.0.1:0" },
    });
    let sections = config.as_object().expect("a mapping").iter();
    let text: String = sections.map(|(name, section)| format!("{name}: {section}\n")).collect();
    let mut setup = Setup::new().config(text);
    for (name, text) in tls::files().into_iter().filter(|_| scenario.tls) {
        setup = setup.file(name, text);
    }
    for filter in &scenario.filters {
        setup = setup.plugin_bytes(filter.guest, &guests::wasm(filter.guest));
    }
    setup.start()
}

fn filter(filter: &Filter) -> serde_json::Value {
    let mut section = serde_json::json!({
        "plugin": filter.guest,
        "name": filter.name,
        "root_id": filter.name,
        "vm_id": if filter.vm_id.is_empty() { filter.name } else { filter.vm_id },
        "config": filter.script,
        "vm_config": filter.vm_script,
        "environment": filter.environment.iter().copied().collect::<std::collections::BTreeMap<_, _>>(),
        // In Envoy there is nothing that a filter may not.
        "grants": {
            "clusters": ["other", "nowhere"],
            "shared_data": ["one", "two", "nobody", "worker"],
            "foreign_functions": FOREIGN_FUNCTIONS,
        },
        // Nor a limit to what it may compute, and what is compared is what it does.
        "cpu": "1s",
        "cpu_per_second": "0s",
        "cpu_per_stream": "0s",
        "on_failure": if filter.fail_open { "open" } else { "closed" },
    });
    if filter.headers_stop_iteration {
        section["allow_on_headers_stop_iteration"] = true.into();
    }
    section
}
