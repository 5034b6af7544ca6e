//! `ip-access`: requests are allowed and denied by the address of the client.
//!
//! Rules are looked at in order; the first that fits decides. Without one that fits the request is denied. The address
//! is that of the connection, and only behind proxies that are trusted the one that they name.

use std::net::IpAddr;

use filter_parts::address::{Network, client, parse};
use filter_parts::text::is_plain;
use weir_sdk::prelude::*;
use weir_sdk::properties;

/// The filter's configuration.
#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The rules, in order.
    rules: Vec<RuleConfig>,
    /// The proxies that are believed when they say, in `x-forwarded-for`, where a request came from.
    #[serde(default)]
    trusted_proxies: Vec<Network>,
    /// The status of what is denied.
    #[serde(default = "forbidden")]
    status: u16,
}

fn forbidden() -> u16 {
    403
}

/// A rule as it is written.
#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
struct RuleConfig {
    /// How the decision is called.
    name: Option<String>,
    /// Who may: addresses and networks, or `*` for everybody.
    allow: Option<Vec<Place>>,
    /// Who may not.
    deny: Option<Vec<Place>>,
}

/// Where clients are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Schema)]
#[serde(try_from = "String")]
enum Place {
    Everywhere,
    In(Network),
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        if text == "*" { Ok(Self::Everywhere) } else { Network::try_from(text).map(Self::In) }
    }
}

/// A rule.
#[derive(Debug)]
struct Rule {
    name: String,
    allows: bool,
    places: Vec<Place>,
}

/// The filter.
#[derive(Debug)]
struct IpAccess {
    rules: Vec<Rule>,
    trusted: Vec<Network>,
    status: u16,
}

#[weir_sdk::http_filter]
impl HttpFilter for IpAccess {
    type Config = Config;

    fn new(config: Config) -> Result<Self> {
        Self::compile(config)
    }

    fn on_request_headers(&self, request: &mut Request, _: &mut ()) -> Result<Action> {
        let peer = properties::source_address()?.as_deref().and_then(parse);
        let client = match peer {
            Some(peer) if self.trusted.is_empty() => Some(peer),
            Some(peer) => {
                let headers = request.headers()?;
                let named: Vec<String> = headers
                    .get_all("x-forwarded-for")
                    .map(|value| String::from_utf8_lossy(value).into_owned())
                    .collect();
                client(peer, named.iter().map(String::as_str), &self.trusted)
            }
            None => None,
        };
        let (allowed, name) = self.decide(client);
        if allowed {
            return Ok(Action::Continue);
        }
        let who = client.map_or_else(|| "an unknown address".to_owned(), |client| client.to_string());
        Ok(Action::Reply(Reply::new(self.status).body("denied\n").details(format!("{who} denied by {name}"))))
    }
}

impl IpAccess {
    fn compile(config: Config) -> Result<Self> {
        if config.rules.is_empty() {
            return Err(Error::new("`rules` is empty, so that everybody would be denied; add a rule"));
        }
        if !(400..=599).contains(&config.status) {
            return Err(Error::new(format!(
                "`status: {}` tells nobody that it was denied; use 400 to 599",
                config.status
            )));
        }
        let rules =
            config.rules.into_iter().enumerate().map(|(at, rule)| rule.compile(at)).collect::<Result<_>>()?;
        Ok(Self { rules, trusted: config.trusted_proxies, status: config.status })
    }

    /// Whether a client may, and the name of the rule that says so. One whose address nobody knows may not.
    fn decide(&self, client: Option<IpAddr>) -> (bool, &str) {
        let Some(client) = client else { return (false, "default") };
        let rule = self.rules.iter().find(|rule| rule.fits(client));
        rule.map_or((false, "default"), |rule| (rule.allows, &rule.name))
    }
}

impl RuleConfig {
    fn compile(self, at: usize) -> Result<Rule> {
        let name = self.name.unwrap_or_else(|| format!("rules[{at}]"));
        if !is_plain(&name) {
            return Err(Error::new(format!("the name `{name}` cannot stand in a log line; use plain ASCII")));
        }
        let (allows, places) = match (self.allow, self.deny) {
            (Some(places), None) => (true, places),
            (None, Some(places)) => (false, places),
            (None, None) => {
                return Err(Error::new(format!(
                    "{name} says neither `allow` nor `deny`; add the one that it is for"
                )));
            }
            (Some(_), Some(_)) => {
                return Err(Error::new(format!("{name} says both `allow` and `deny`; make it two rules")));
            }
        };
        if places.is_empty() {
            return Err(Error::new(format!("{name} names nobody; write addresses, networks or `*`")));
        }
        Ok(Rule { name, allows, places })
    }
}

impl Rule {
    fn fits(&self, client: IpAddr) -> bool {
        self.places.iter().any(|place| match place {
            Place::Everywhere => true,
            Place::In(network) => network.contains(client),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(config: &str) -> Result<IpAccess> {
        IpAccess::compile(serde_json::from_str(config).map_err(Error::from)?)
    }

    #[test]
    fn the_first_rule_that_fits_decides_and_without_one_nobody_may() {
        let filter = filter(
            r#"{"rules": [ {"name": "banned", "deny": ["10.0.0.66", "2001:db8:bad::/48"]},
                {"allow": ["10.0.0.0/8", "2001:db8::/32"]} ]}"#,
        )
        .expect("a good configuration");
        let decide = |address: &str| {
            let (allowed, name) = filter.decide(parse(address));
            format!("{allowed} {name}")
        };
        assert_eq!(decide("10.1.2.3:80"), "true rules[1]");
        assert_eq!(decide("10.0.0.66:80"), "false banned");
        assert_eq!(decide("[::ffff:10.0.0.66]:80"), "false banned", "the same address in other words");
        assert_eq!(decide("[::ffff:10.0.0.67]:80"), "true rules[1]");
        assert_eq!(decide("[::10.0.0.67]:80"), "false default", "that is another one");
        assert_eq!(decide("[2001:db8:bad::1]:80"), "false banned");
        assert_eq!(decide("[2001:db8:1::1]:80"), "true rules[1]");
        assert_eq!(decide("192.0.2.1:80"), "false default");
        assert_eq!(decide("who knows"), "false default");
    }

    #[test]
    fn an_address_that_nobody_knows_is_denied_where_everybody_else_may() {
        let filter = filter(r#"{"rules": [{"deny": ["192.0.2.1"]}, {"allow": ["*"]}]}"#).expect("good");
        assert_eq!(filter.decide(None), (false, "default"));
        assert_eq!(filter.decide(parse("192.0.2.2")), (true, "rules[1]"));
    }

    #[test]
    fn a_configuration_that_makes_no_sense_is_refused_with_the_cure() {
        let error = |config: &str| filter(config).expect_err(config).to_string();
        assert!(error(r#"{"rules": []}"#).contains("add a rule"));
        assert!(error(r#"{"rules": [{}]}"#).contains("neither `allow` nor `deny`"));
        assert!(error(r#"{"rules": [{"allow": ["*"], "deny": ["*"]}]}"#).contains("both"));
        assert!(error(r#"{"rules": [{"allow": []}]}"#).contains("names nobody"));
        assert!(error(r#"{"rules": [{"allow": ["10.0.0.1/8"]}]}"#).contains("write `10.0.0.0/8`"));
        assert!(error(r#"{"rules": [{"allow": ["localhost"]}]}"#).contains("is not an address"));
        assert!(error(r#"{"rules": [{"allow": ["*"]}], "status": 200}"#).contains("use 400 to 599"));
        assert!(error(r#"{"rules": [{"allow": ["*"]}], "proxies": []}"#).contains("unknown field `proxies`"));
    }
}
