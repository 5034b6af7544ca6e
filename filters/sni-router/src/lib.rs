//! `sni-router`: which cluster a TLS connection goes to, by the server name that the client asks for.
//!
//! The connection stays encrypted, and nobody here holds a key. Exact names come first, then the template; a name
//! that neither knows is refused.

mod template;

use std::collections::BTreeMap;

use weir_sdk::prelude::*;

use crate::template::{Pattern, Template};

/// The filter's configuration.
#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Server names with placeholders for single labels or parts of them: `{env}.{app}.meshproxy.internal`.
    template: Option<String>,
    /// The cluster that the template stands for, made of its placeholders: `{app}-{env}`.
    cluster: Option<String>,
    /// Clusters by exact server name.
    #[serde(default)]
    names: BTreeMap<String, String>,
    /// The cluster for all other names. Without it they are refused.
    default: Option<String>,
}

/// The filter.
#[derive(Debug)]
struct SniRouter {
    rule: Option<(Pattern, Template)>,
    names: BTreeMap<String, String>,
    default: Option<String>,
}

#[weir_sdk::network_filter]
impl NetworkFilter for SniRouter {
    type Config = Config;

    fn new(config: Config) -> Result<Self> {
        let rule = match (&config.template, &config.cluster) {
            (Some(template), Some(cluster)) => {
                let pattern = Pattern::parse(template)?;
                let cluster = Template::parse(cluster, pattern.names())?;
                Some((pattern, cluster))
            }
            (None, None) => None,
            (Some(_), None) => {
                return Err(Error::new("`template` needs `cluster`, the cluster that it stands for"));
            }
            (None, Some(_)) => {
                return Err(Error::new("`cluster` needs `template`, the names that it is for"));
            }
        };
        if rule.is_none() && config.names.is_empty() && config.default.is_none() {
            return Err(Error::new("nothing is routed; set `template` and `cluster`, `names` or `default`"));
        }
        let names = config.names.into_iter().map(|(name, cluster)| (canonical(&name), cluster)).collect();
        Ok(Self { rule, names, default: config.default })
    }

    fn on_new_connection(&self, connection: &mut Connection, _: &mut ()) -> Result<ConnectionAction> {
        let Some(name) = connection.server_name()? else {
            weir_sdk::warn!(
                "a connection without server name is refused; is the listener's `tls: passthrough`?"
            );
            return Ok(ConnectionAction::Close);
        };
        match self.cluster(&name) {
            Some(cluster) => {
                connection.route_to(&cluster)?;
                Ok(ConnectionAction::Continue)
            }
            None => {
                weir_sdk::info!("server name {name} is refused: no rule knows it");
                Ok(ConnectionAction::Close)
            }
        }
    }
}

impl SniRouter {
    /// The cluster for a server name in its canonical form.
    fn cluster(&self, name: &str) -> Option<String> {
        if let Some(cluster) = self.names.get(name) {
            return Some(cluster.clone());
        }
        let by_template =
            self.rule.as_ref().and_then(|(pattern, cluster)| Some(cluster.fill(&pattern.read(name)?)));
        by_template.or_else(|| self.default.clone())
    }
}

/// The host gives names in lower case and without a trailing dot.
fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(config: Config) -> Result<SniRouter> {
        SniRouter::new(config)
    }

    fn config() -> Config {
        Config {
            template: Some("{env}.{app}.meshproxy.internal".into()),
            cluster: Some("{app}-{env}".into()),
            names: BTreeMap::from([("Legacy.example.".into(), "legacy".into())]),
            default: None,
        }
    }

    #[test]
    fn a_template_names_the_cluster() {
        let router = router(config()).expect("a good configuration");
        assert_eq!(router.cluster("prod.orders.meshproxy.internal").as_deref(), Some("orders-prod"));
        assert_eq!(router.cluster("a.b.c.meshproxy.internal"), None, "a placeholder stands for one label");
        assert_eq!(router.cluster("orders.meshproxy.internal"), None);
        assert_eq!(router.cluster("evil.example"), None, "what no rule knows is refused");
    }

    #[test]
    fn exact_names_come_first_in_their_canonical_form() {
        let router = router(config()).expect("a good configuration");
        assert_eq!(router.cluster("legacy.example").as_deref(), Some("legacy"));
    }

    #[test]
    fn a_default_takes_the_rest_only_when_it_is_set() {
        let router =
            router(Config { default: Some("rest".into()), ..config() }).expect("a good configuration");
        assert_eq!(router.cluster("evil.example").as_deref(), Some("rest"));
    }

    #[test]
    fn a_configuration_without_sense_is_refused_with_the_cure() {
        let none = Config { template: None, cluster: None, names: BTreeMap::new(), default: None };
        assert!(router(none).expect_err("nothing to do").to_string().contains("nothing is routed"));
        let half = Config { cluster: None, ..config() };
        assert!(router(half).expect_err("half a rule").to_string().contains("needs `cluster`"));
        let unknown = Config { cluster: Some("{app}-{zone}".into()), ..config() };
        assert!(router(unknown).expect_err("zone").to_string().contains("`{zone}` is not in the template"));
    }
}
