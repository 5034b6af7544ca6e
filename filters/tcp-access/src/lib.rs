//! `tcp-access`: which connections are let in, by server name, protocol, client certificate and address.
//!
//! Rules are looked at in order; the first that fits decides. Without one that fits the connection is closed. The
//! filter looks once, when a connection begins, and at no byte of it, so that what is let in is relayed by the kernel.

mod rule;

use filter_parts::address::parse;
use weir_sdk::prelude::*;
use weir_sdk::{info, properties};

use crate::rule::{Facts, Offered, Rule, RuleConfig};

/// The filter's configuration.
#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The rules, in order.
    rules: Vec<RuleConfig>,
}

/// The filter.
#[derive(Debug)]
struct TcpAccess {
    rules: Vec<Rule>,
}

#[weir_sdk::network_filter]
impl NetworkFilter for TcpAccess {
    type Config = Config;

    fn new(config: Config) -> Result<Self> {
        if config.rules.is_empty() {
            return Err(Error::new("`rules` is empty, so that every connection would be closed; add a rule"));
        }
        let rules =
            config.rules.into_iter().enumerate().map(|(at, rule)| rule.compile(at)).collect::<Result<_>>()?;
        Ok(Self { rules })
    }

    fn on_new_connection(&self, connection: &mut Connection, _: &mut ()) -> Result<ConnectionAction> {
        let facts = Known { address: connection.source_address()?.as_deref().and_then(parse) };
        let (allowed, name) = self.decide(&facts)?;
        if allowed {
            return Ok(ConnectionAction::Continue);
        }
        let who =
            facts.address.map_or_else(|| "an unknown address".to_owned(), |address| address.to_string());
        info!("a connection of {who} is refused by {name}");
        Ok(ConnectionAction::Close)
    }
}

impl TcpAccess {
    /// Whether a connection is allowed, and the name of the rule that says so.
    fn decide(&self, facts: &impl Facts) -> Result<(bool, &str)> {
        for rule in &self.rules {
            if rule.fits(facts)? {
                return Ok((rule.allows, &rule.name));
            }
        }
        Ok((false, "default"))
    }
}

/// What the host knows of the connection.
struct Known {
    address: Option<std::net::IpAddr>,
}

/// A text of the connection that is there and is not empty: Envoy has an empty one for what there is not.
fn text(name: &str) -> Result<Option<String>> {
    Ok(properties::text(&["connection", name])?.filter(|text| !text.is_empty()))
}

impl Facts for Known {
    fn address(&self) -> Option<std::net::IpAddr> {
        self.address
    }

    fn server_name(&self) -> Result<Option<String>> {
        text("requested_server_name")
    }

    fn offered(&self) -> Result<Offered> {
        match properties::get(&["connection", "alpn"])? {
            Some(list) => {
                let pairs = weir_abi::decode_pairs(&list).ok();
                let names = pairs.into_iter().flatten().map(|(name, _)| name.to_vec());
                Ok(Offered::Known(names.collect()))
            }
            None if self.server_name()?.is_some() || text("tls_version")?.is_some() => Ok(Offered::Unknown),
            None => Ok(Offered::Known(Vec::new())),
        }
    }

    fn has_certificate(&self) -> Result<bool> {
        Ok(properties::get(&["connection", "mtls"])?.is_some_and(|mtls| mtls == [1]))
    }

    fn identity(&self) -> Result<Option<String>> {
        properties::spiffe_id()
    }

    fn dns_name(&self) -> Result<Option<String>> {
        Ok(text("dns_san_peer_certificate")?.map(|name| name.to_ascii_lowercase()))
    }

    fn digest(&self) -> Result<Option<String>> {
        text("sha256_peer_certificate_digest")
    }
}
