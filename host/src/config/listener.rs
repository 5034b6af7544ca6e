//! `listeners`: where traffic comes from, and what becomes of it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value as Json;

use crate::config::filter::Filter;
use crate::config::limits::Limits;
use crate::config::metadata::Metadata;
use crate::config::route::Route;
use crate::config::section::{Context, Definitions, Read, choice, section};
use crate::config::tls::{ListenerTls, Mode};
use crate::config::value::{IpNet, Spanned};
use crate::config::yaml::{Node, Value};

section! {
    /// An address that accepts connections.
    pub struct ListenerSection {
        /// Its name.
        name: Spanned<String>,
        /// Where it listens.
        address: Spanned<SocketAddr>,
        /// Who says who the client is, by the PROXY protocol.
        proxy_protocol: Option<ProxyProtocol>,
        /// TLS.
        tls: Option<ListenerTls>,
        /// Network filters, in the order in which they see a connection.
        filters: Vec<Filter>,
        /// Relays the bytes to a cluster.
        tcp: Option<Tcp>,
        /// Speaks HTTP.
        http: Option<Http>,
        /// The connections that it may have at a time; one more is reset. `0` is no limit.
        max_connections: u32 = "10000",
        /// Those of one client address, or of one /64 network of IPv6. `0` is no limit.
        max_connections_per_client: u32 = "0",
        /// How long a client may take for its PROXY protocol header, its ClientHello and the TLS handshake together. `0s`
        /// is no limit.
        handshake_timeout: Duration = "10s",
        /// How long bytes that are relayed (TCP, and HTTP after an upgrade) may be silent. `0s` is no limit.
        tcp_idle_timeout: Duration = "1h",
        /// Facts for plugins, in a mapping for each that they are for.
        metadata: Metadata,
    }
}

section! {
    /// The PROXY protocol on a listener, version 1 or 2. What a header says of the client's address holds for
    /// everything: limits, filters, logs, and what the upstream is told.
    pub struct ProxyProtocol {
        /// The proxies that send a header on every connection, as addresses or networks. One without it is closed.
        from: Vec<IpNet>,
        /// What becomes of a connection of anybody else.
        others: Others = "refuse",
    }
}

choice! {
    /// What becomes of a connection that comes from none of the listed proxies.
    pub enum Others {
        /// It is reset.
        Refuse = "refuse",
        /// It is served as it is. A header, if it sends one, is a part of what it says, and tells nothing.
        Plain = "plain",
    }
}

section! {
    /// What becomes of a connection that is not HTTP.
    pub struct Tcp {
        /// The cluster, unless a network filter chooses another.
        cluster: Spanned<String>,
    }
}

/// HTTP: filters, routes, and limits beside them.
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// Filters, in order for requests and in reverse for responses.
    pub filters: Vec<Filter>,
    /// Routes; the first that matches is taken.
    pub routes: Vec<Route>,
    /// Limits.
    pub limits: Limits,
}

section! {
    /// HTTP: filters and routes. The limits stand beside them.
    pub struct HttpSection {
        /// Filters, in order for requests and in reverse for responses.
        filters: Vec<Filter>,
        /// Routes; the first that matches is taken.
        routes: Vec<Route>,
    }
}

/// Two sections in one mapping: each reads its own fields, and either knows the other's.
impl Read for Http {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let (own, limits) = split(node, &["filters", "routes"]);
        let section = HttpSection::read(&own, cx);
        let limits = Limits::read(&limits, cx);
        let (HttpSection { filters, routes }, limits) = (section?, limits?);
        Some(Self { filters, routes, limits })
    }

    fn schema(definitions: &mut Definitions) -> Json {
        HttpSection::schema(definitions);
        Limits::schema(definitions);
        let merged = ["properties", "required"].map(|part| {
            let parts = ["HttpSection", "Limits"].map(|name| definitions.get(name).and_then(|s| s.get(part)));
            match parts {
                [Some(Json::Object(a)), Some(Json::Object(b))] => {
                    Json::Object(a.iter().chain(b).map(|(k, v)| (k.clone(), v.clone())).collect())
                }
                _ => Json::Array(Vec::new()),
            }
        });
        definitions.remove("Limits");
        if let Some(section) = definitions.remove("HttpSection") {
            let [properties, required] = merged;
            let mut section = section;
            if let Json::Object(fields) = &mut section {
                fields.insert("properties".to_owned(), properties);
                fields.insert("required".to_owned(), required);
            }
            definitions.insert("Http".to_owned(), section);
        }
        serde_json::json!({ "$ref": "#/$defs/Http" })
    }

    fn to_json(&self) -> Json {
        let mut all = serde_json::Map::new();
        all.insert("filters".to_owned(), self.filters.to_json());
        all.insert("routes".to_owned(), self.routes.to_json());
        if let Json::Object(limits) = self.limits.to_json() {
            all.extend(limits);
        }
        all.into()
    }
}

/// Splits a mapping into the entries that are named and the others. What is no mapping goes both ways.
fn split(node: &Node, named: &[&str]) -> (Node, Node) {
    let Value::Mapping(entries) = &node.value else {
        return (node.clone(), Node { at: node.at, value: Value::Mapping(Vec::new()) });
    };
    let (own, others) = entries.iter().cloned().partition(|entry| named.contains(&entry.key.as_str()));
    (Node { at: node.at, value: Value::Mapping(own) }, Node { at: node.at, value: Value::Mapping(others) })
}

/// What a listener grants to its connections, whatever they speak.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectionLimits {
    /// How many there may be at a time; 0 is no limit.
    pub most: u32,
    /// Those of one client; 0 is no limit.
    pub most_per_client: u32,
    /// For the PROXY protocol header, the ClientHello and the TLS handshake; zero is no limit.
    pub handshake_timeout: Duration,
    /// How long bytes that are relayed may be silent; zero is no limit.
    pub tcp_idle_timeout: Duration,
}

/// A listener whose parts fit together.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Its name.
    pub name: Spanned<String>,
    /// Where it listens.
    pub address: Spanned<SocketAddr>,
    /// Who says who the client is.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// TLS.
    pub tls: Option<ListenerTls>,
    /// Network filters.
    pub filters: Vec<Filter>,
    /// What becomes of its connections.
    pub service: Service,
    /// What it grants to them.
    pub connections: ConnectionLimits,
    /// Facts for plugins.
    pub metadata: Metadata,
}

/// What becomes of a listener's connections.
#[derive(Debug, Clone, PartialEq)]
pub enum Service {
    /// Bytes are relayed, to the cluster that a network filter chooses or else to this one.
    Tcp {
        /// The cluster when no filter chooses.
        cluster: Option<Spanned<String>>,
    },
    /// HTTP.
    Http(Http),
}

impl Read for Listener {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let section = ListenerSection::read(node, cx)?;
        let connections = ConnectionLimits {
            most: section.max_connections,
            most_per_client: section.max_connections_per_client,
            handshake_timeout: section.handshake_timeout,
            tcp_idle_timeout: section.tcp_idle_timeout,
        };
        let ListenerSection { name, address, proxy_protocol, tls, filters, tcp, http, metadata, .. } =
            section;
        if proxy_protocol.as_ref().is_some_and(|proxies| proxies.from.is_empty()) {
            let message =
                "no proxy is listed; list those that send a header in `from`, or remove the section";
            let at = node.get("proxy_protocol").map_or(node.at, |section| section.at);
            cx.problem_in("proxy_protocol", at, message);
        }
        let passthrough = tls.as_ref().is_some_and(|tls| tls.mode == Mode::Passthrough);
        if passthrough && http.is_some() {
            let cure = "use `mode: terminate`, or remove `http`";
            cx.problem_in("http", node.at, format!("HTTP cannot be read through `tls: passthrough`; {cure}"));
        }
        let service = match (tcp, http) {
            (tcp, Some(http)) => {
                if tcp.is_some() {
                    cx.problem(node.at, "a listener has `tcp` or `http`, not both; remove one");
                }
                Service::Http(http)
            }
            (Some(tcp), None) => Service::Tcp { cluster: Some(tcp.cluster) },
            (None, None) => {
                if filters.is_empty() {
                    let cure =
                        "add `tcp: { cluster: NAME }`, `http`, or a network filter that chooses a cluster";
                    cx.problem(node.at, format!("nothing says where the connections go; {cure}"));
                }
                Service::Tcp { cluster: None }
            }
        };
        if let Some(tls) = &tls {
            cx.below("tls", |cx| check_tls(tls, node, cx));
        }
        Some(Self { name, address, proxy_protocol, tls, filters, service, connections, metadata })
    }

    fn schema(definitions: &mut Definitions) -> Json {
        ListenerSection::schema(definitions)
    }

    fn to_json(&self) -> Json {
        let (tcp, http) = match &self.service {
            Service::Tcp { cluster } => (cluster.clone().map(|cluster| Tcp { cluster }), None),
            Service::Http(http) => (None, Some(http.clone())),
        };
        let (name, address) = (self.name.clone(), self.address.clone());
        let proxy_protocol = self.proxy_protocol.clone();
        let (tls, filters, metadata) = (self.tls.clone(), self.filters.clone(), self.metadata.clone());
        let ConnectionLimits { most, most_per_client, handshake_timeout, tcp_idle_timeout } =
            self.connections.clone();
        let (max_connections, max_connections_per_client) = (most, most_per_client);
        ListenerSection {
            name,
            address,
            proxy_protocol,
            tls,
            filters,
            tcp,
            http,
            max_connections,
            max_connections_per_client,
            handshake_timeout,
            tcp_idle_timeout,
            metadata,
        }
        .to_json()
    }
}

fn check_tls(tls: &ListenerTls, node: &Node, cx: &mut Context<'_>) {
    use crate::config::tls::ClientCertificate;
    let at = node.get("tls").map_or(node.at, |tls| tls.at);
    let asks = tls.client_certificate.value != ClientCertificate::None;
    match tls.mode {
        Mode::Passthrough
            if asks
                || tls.client_ca.is_some()
                || tls.client_crl.is_some()
                || !tls.certificates.is_empty() =>
        {
            let message =
                "`passthrough` holds no keys and asks nobody; remove the certificates, or use `terminate`";
            cx.problem(at, message);
        }
        Mode::Terminate if tls.certificates.is_empty() => {
            cx.problem(at, "`terminate` needs a certificate; add `certificates: [{ cert: ..., key: ... }]`");
        }
        Mode::Terminate if asks && tls.client_ca.is_none() => {
            let word = tls.client_certificate.word();
            let message = format!("`client_certificate: {word}` needs `client_ca`, the authorities to trust");
            cx.problem_at(&tls.client_certificate.place, message);
        }
        Mode::Passthrough | Mode::Terminate => {
            if let Some(crl) = tls.client_crl.as_ref().filter(|_| !asks) {
                let message =
                    "nobody is asked for a certificate that could be revoked; set `client_certificate`";
                cx.problem_at(&crl.place, message);
            }
        }
    }
}
