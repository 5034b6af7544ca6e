//! `clusters`: where traffic goes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::config::metadata::Metadata;
use crate::config::section::{Context, Definitions, Read, choice, section, text};
use crate::config::tls::ClusterTls;
use crate::config::value::{Percent, Size, Spanned};
use crate::config::yaml::Node;

section! {
    /// A group of endpoints that serve the same thing.
    pub struct Cluster {
        /// Its name, by which routes and plugins know it.
        name: Spanned<String>,
        /// Its endpoints: `IP:port`, or `dns-name:port`, which stands for every address of the name.
        endpoints: Vec<Endpoint>,
        /// The protocol towards the endpoints. `auto`: what TLS negotiates; HTTP/1.1 without TLS.
        protocol: Protocol = "auto",
        /// How an endpoint is chosen.
        balance: Balance = "round_robin",
        /// How long a connection may take, TLS included.
        connect_timeout: Duration = "15s",
        /// What a connection to an endpoint may read ahead, and what may wait to be written to it, before the other side is
        /// held up. Bulk that no filter looks at may wait in the kernel besides, up to 512 KiB.
        per_connection_buffer_limit: Size = "64KiB",
        /// When an endpoint is left out.
        outlier_detection: OutlierDetection = "",
        /// How many requests may be tried again on another endpoint, of a hundred. It is done once, when there was no
        /// connection, or when a request that may be repeated and has no body was not answered with a single byte.
        retry_budget: Percent = "20%",
        /// TLS towards the endpoints.
        tls: Option<ClusterTls>,
        /// The version of the PROXY protocol in which each connection to an endpoint begins by telling who the client is,
        /// before TLS. Clients do not share such connections.
        proxy_protocol: Option<ProxyVersion>,
        /// Whether calls of plugins may go to private addresses that its names stand for. An address that is written
        /// here is meant, whatever it is.
        allow_private: bool = "false",
        /// Facts for plugins, in a mapping for each that they are for.
        metadata: Metadata,
    }
}

section! {
    /// When an endpoint is left out. Where all would be, none is.
    pub struct OutlierDetection {
        /// After how many failures in a row: no connection, no answer, or one that is malformed or breaks off. `0` is never.
        consecutive_failures: u16 = "5",
        /// For how long.
        base_ejection_time: Duration = "30s",
    }
}

choice! {
    /// The protocol towards endpoints.
    pub enum Protocol {
        /// HTTP/1.1.
        Http1 = "http1",
        /// HTTP/2, with prior knowledge where there is no TLS.
        Http2 = "http2",
        /// What TLS negotiates; HTTP/1.1 without TLS.
        Auto = "auto",
    }
}

choice! {
    /// A version of the PROXY protocol.
    pub enum ProxyVersion {
        /// A line of text.
        V1 = "v1",
        /// Binary.
        V2 = "v2",
    }
}

choice! {
    /// How an endpoint is chosen.
    pub enum Balance {
        /// One after the other.
        RoundRobin = "round_robin",
    }
}

/// An endpoint as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `IP:port`.
    Address(SocketAddr),
    /// `dns-name:port`.
    Dns {
        /// The name.
        name: String,
        /// The port.
        port: u16,
    },
}

impl Endpoint {
    /// Its name, when it has one.
    pub fn dns_name(&self) -> Option<&str> {
        match self {
            Self::Dns { name, .. } => Some(name),
            Self::Address(_) => None,
        }
    }

    fn parse(word: &str) -> Option<Self> {
        if let Ok(address) = word.parse() {
            return Some(Self::Address(address));
        }
        let (name, port) = word.rsplit_once(':')?;
        let port = port.parse().ok().filter(|&port| port > 0)?;
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        let named = name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(label);
        // `1.2.3` or `0x7f.1` is a slip in an address, not a name.
        let last = name.rsplit('.').next().unwrap_or(name);
        let numeric = last.bytes().all(|byte| byte.is_ascii_digit()) || name.parse::<IpAddr>().is_ok();
        (named && !numeric).then(|| Self::Dns { name: name.to_ascii_lowercase(), port })
    }
}

impl Read for Endpoint {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let word = text(node, cx)?;
        Self::parse(word).or_else(|| {
            let message = format!("`{word}` is not an endpoint; write `IP:port` or `dns-name:port`");
            cx.problem(node.at, message);
            None
        })
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({ "type": "string" })
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Address(address) => address.to_string().into(),
            Self::Dns { name, port } => format!("{name}:{port}").into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_addresses_or_names_with_a_port() {
        let dns = |name: &str, port| Some(Endpoint::Dns { name: name.to_owned(), port });
        assert_eq!(Endpoint::parse("127.0.0.1:80"), Some(Endpoint::Address(([127, 0, 0, 1], 80).into())));
        assert!(matches!(Endpoint::parse("[::1]:80"), Some(Endpoint::Address(_))));
        assert_eq!(Endpoint::parse("API.internal:80"), dns("api.internal", 80));
        assert_eq!(Endpoint::parse("localhost:80"), dns("localhost", 80));
        for wrong in ["api", "api:", "api:0", "api:99999", "300.1.1.1:80", "1.2.3:80", ":80", "a b:80", "-:x"]
        {
            assert_eq!(Endpoint::parse(wrong), None, "{wrong}");
        }
    }
}
