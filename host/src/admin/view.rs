//! What is in force, as JSON. Secrets are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use crate::config::section::Read;
use crate::net::connection::Certificate;
use crate::net::tls::renewal::time;
use crate::plugin::library::Version;
use crate::plugin::meter::Refusal;
use crate::plugin::services::{FaultKind, Usage};
use crate::plugin::spec::FilterSpec;
use crate::reload::status::{Status, lock};
use crate::snapshot::{Concern, FilterUse, Listener, Service, Snapshot, Tls};
use crate::telemetry::metrics::Registry;

/// The plugins: versions, who uses them, and what they used.
pub fn plugins(status: &Status, registry: &Registry) -> Json {
    let snapshot = status.snapshot();
    let mut library = lock(&status.library);
    library.prune();
    let plugins: Vec<Json> = library
        .plugins()
        .map(|(name, plugin)| {
            let uses = snapshot.as_deref().map(|snapshot| uses(snapshot, name)).unwrap_or_default();
            let mut fields = Map::new();
            fields.insert("name".to_owned(), name.into());
            fields.insert("versions".to_owned(), plugin.versions().map(version).collect::<Vec<_>>().into());
            if let Some(notice) = plugin.notice() {
                fields.insert("notice".to_owned(), notice.into());
            }
            let filters: Vec<Json> = uses
                .iter()
                .map(|(listener, filter)| json!({ "listener": &**listener, "filter": &**filter }))
                .collect();
            fields.insert("filters".to_owned(), filters.into());
            fields.extend(usage(name, registry));
            fields.into()
        })
        .collect();
    json!({ "plugins": plugins })
}

/// The filters that use a plugin: listener and filter name, each once.
fn uses(snapshot: &Snapshot, plugin: &str) -> BTreeSet<(Arc<str>, Arc<str>)> {
    let of = |uses: &[FilterUse]| -> Vec<(Arc<str>, Arc<str>)> {
        let own = uses.iter().filter(|filter| &*filter.spec.plugin == plugin);
        own.map(|filter| (Arc::clone(&filter.spec.listener), Arc::clone(&filter.spec.name))).collect()
    };
    let of_listener = |listener: &Arc<Listener>| {
        let mut all = of(&listener.filters);
        if let Service::Http(http) = &listener.service {
            all.extend(http.chains.iter().flat_map(|chain| of(chain)));
        }
        all
    };
    snapshot.listeners.iter().flat_map(of_listener).collect()
}

/// A version, and what each filter that runs it used.
fn version(version: &Version) -> Json {
    let mut fields = if let Json::Object(fields) = json!(version) { fields } else { Map::new() };
    let mut filters = BTreeMap::new();
    for vm in version.vms() {
        for (spec, usage) in vm.filters.iter().zip(&vm.usages) {
            // A route's own configuration makes a VM of its own, which counts with the filter's.
            let key = (Arc::clone(&spec.listener), Arc::clone(&spec.name));
            filters.entry(key).or_insert_with(|| usage_of(spec, usage));
        }
    }
    if !filters.is_empty() {
        fields.insert("filters".to_owned(), filters.into_values().collect::<Vec<_>>().into());
    }
    fields.into()
}

fn usage_of(spec: &FilterSpec, usage: &Usage) -> Json {
    let gauge = |value: i64| u64::try_from(value).unwrap_or(0);
    let faults = FaultKind::ALL.map(|kind| (kind.as_str().to_owned(), usage.faults(kind).value().into()));
    json!({
        "listener": &*spec.listener,
        "filter": &*spec.name,
        "instances": gauge(usage.instances.value()),
        "calls": usage.calls.value(),
        "cpu_seconds": usage.cpu.value() as f64 / 1e9,
        "memory_bytes": gauge(usage.memory.value()),
        "memory_peak_bytes": usage.memory_peak.value(),
        "breakers_open": gauge(usage.breakers_open.value()),
        "throttled": usage.refused(Refusal::Throttled).value(),
        "faults": Map::from_iter(faults),
    })
}

/// What the filters of a plugin used, all versions taken together.
fn usage(plugin: &str, registry: &Registry) -> Map<String, Json> {
    let sum = |name: &str| registry.total(name, ("plugin", plugin), None);
    let faults: Map<String, Json> = FaultKind::ALL
        .iter()
        .map(|&kind| {
            let kind = kind.as_str();
            let count = registry.total("weir_plugin_faults_total", ("plugin", plugin), Some(("kind", kind)));
            (kind.to_owned(), count.into())
        })
        .collect();
    let fields = json!({
        "instances": sum("weir_plugin_instances"),
        "calls": sum("weir_plugin_calls_total"),
        "cpu_seconds": sum("weir_plugin_cpu_seconds_total") as f64 / 1e9,
        "memory_bytes": sum("weir_plugin_memory_bytes"),
        "memory_peak_bytes": sum("weir_plugin_memory_peak_bytes"),
        "faults": faults,
    });
    if let Json::Object(fields) = fields { fields } else { Map::new() }
}

/// The listeners: where they listen and what they do.
pub fn listeners(status: &Status) -> Json {
    let bound = lock(&status.bound);
    let listeners = each(status, |snapshot| {
        let show = |listener: &Arc<Listener>| {
            let address = bound.get(&listener.socket_key()).unwrap_or(&listener.address);
            let (kind, detail) = match &listener.service {
                Service::Tcp { cluster } => {
                    let cluster = cluster.and_then(|number| snapshot.clusters.get(number));
                    ("tcp", json!({ "cluster": cluster.map(|cluster| &*cluster.name) }))
                }
                Service::Http(http) => {
                    let names: Vec<&str> = http.routes.routes().iter().map(|route| &*route.name).collect();
                    ("http", json!({ "routes": names, "filters": filter_names(http.chains.first()) }))
                }
            };
            let tls = match &listener.tls {
                Tls::None => "none",
                Tls::Passthrough => "passthrough",
                Tls::Terminate(_) => "terminate",
            };
            json!({
                "name": &*listener.name,
                "address": address.to_string(),
                "tls": tls,
                "filters": filter_names(Some(&listener.filters)),
                kind: detail,
                "open_connections": listener.metrics.open.value(),
                "connections": listener.metrics.accepted.value(),
            })
        };
        snapshot.listeners.iter().map(show).collect()
    });
    json!({ "listeners": listeners })
}

fn filter_names(filters: Option<&Vec<FilterUse>>) -> Vec<&str> {
    filters.into_iter().flatten().map(|filter| &*filter.spec.name).collect()
}

/// The clusters: their endpoints, resolved.
pub fn clusters(status: &Status) -> Json {
    let clusters = each(status, |snapshot| {
        let show = |cluster: &Arc<crate::upstream::cluster::Cluster>| {
            let endpoint = |address: &SocketAddr| {
                let ejected = cluster.outliers.is_ejected(*address);
                json!({ "address": address.to_string(), "ejected": ejected })
            };
            let endpoints: Vec<Json> = cluster.endpoints.iter().map(endpoint).collect();
            json!({
                "name": &*cluster.name,
                "endpoints": endpoints,
                "configured": cluster.config.endpoints.to_json(),
                "protocol": cluster.config.protocol.word(),
                "balance": cluster.config.balance.word(),
                "tls": cluster.tls.is_some(),
                "open_connections": cluster.metrics.connections.value(),
                "connects": cluster.metrics.connects.value(),
                "connect_failures": cluster.metrics.connect_failures.value(),
            })
        };
        snapshot.clusters.iter().map(show).collect()
    });
    json!({ "clusters": clusters })
}

/// The certificates that Weir shows, to clients and to endpoints.
pub fn certificates(status: &Status) -> Json {
    let certificates = each(status, |snapshot| {
        let mut all = Vec::new();
        for listener in &snapshot.listeners {
            if let Tls::Terminate(tls) = &listener.tls {
                for (files, certificate) in tls.certificates() {
                    let file = files.cert.value.display().to_string();
                    all.push(describe(certificate, json!({ "listener": &*listener.name }), &file));
                }
            }
        }
        for cluster in &snapshot.clusters {
            let tls = cluster.tls.as_ref();
            if let Some((certificate, file)) =
                tls.and_then(|tls| Some((tls.certificate()?, tls.config.cert.as_ref()?)))
            {
                let file = file.value.display().to_string();
                all.push(describe(certificate, json!({ "cluster": &*cluster.name }), &file));
            }
        }
        all
    });
    let concerns = each(status, |snapshot| {
        let show = |concern: Concern| {
            let (kind, name) = concern.owner.label();
            let since = concern.since.map(|since| humantime::format_rfc3339_seconds(since).to_string());
            json!({ "used_by": { kind: name }, "reason": concern.reason, "since": since })
        };
        snapshot.concerns().into_iter().map(show).collect()
    });
    json!({ "certificates": certificates, "degraded": concerns })
}

fn describe(certificate: &Certificate, used_by: Json, file: &str) -> Json {
    json!({
        "used_by": used_by,
        "file": file,
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "serial": certificate.serial,
        "sha256": certificate.sha256,
        "dns_names": certificate.dns_sans,
        "uri_names": certificate.uri_sans,
        "not_before": time(certificate.validity.0),
        "not_after": time(certificate.validity.1),
    })
}

/// The configuration in force, defaults filled in; which of its sections wait for a restart, and why a newer one was
/// refused, when there are such.
pub fn config(status: &Status) -> Json {
    let snapshot = status.snapshot();
    let config = snapshot.as_ref().map(|snapshot| snapshot.config.sections.to_json());
    let file = snapshot.as_ref().map(|snapshot| snapshot.config.file.display().to_string());
    let mut shown = Map::from_iter([("file".to_owned(), json!(file)), ("config".to_owned(), json!(config))]);
    let waiting = lock(&status.needs_restart);
    if !waiting.is_empty() {
        shown.insert("needs_restart".to_owned(), json!(*waiting));
    }
    if let Some(reason) = lock(&status.rejected).as_ref() {
        shown.insert("rejected".to_owned(), json!(reason));
    }
    shown.into()
}

fn each(status: &Status, show: impl FnOnce(&Snapshot) -> Vec<Json>) -> Vec<Json> {
    status.snapshot().map(|snapshot| show(&snapshot)).unwrap_or_default()
}
