//! `authz`: who may call what.
//!
//! Rules are looked at in order; the first that fits decides. Without one that fits the request is denied. Who the
//! caller is comes from its verified certificate alone, never from a header.

mod rule;

use filter_parts::text::{host_of, is_plain, is_token, path_and_query};
use weir_sdk::prelude::*;
use weir_sdk::properties;

use crate::rule::{Facts, Rule, RuleConfig};

/// The filter's configuration.
#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The rules, in order.
    rules: Vec<RuleConfig>,
    /// The response header that says which rule decided. Without it nobody is told.
    decision_header: Option<String>,
}

/// The filter.
#[derive(Debug)]
struct Authz {
    rules: Vec<Rule>,
    decision_header: Option<String>,
}

/// What the filter remembers of a request: the name of the rule that decided, when it is to be told.
type Decision = Option<String>;

#[weir_sdk::http_filter]
impl HttpFilter for Authz {
    type Config = Config;
    type Stream = Decision;

    fn new(config: Config) -> Result<Self> {
        let rules = config.rules.into_iter().enumerate();
        let rules: Vec<Rule> = rules.map(|(at, rule)| rule.compile(at)).collect::<Result<_>>()?;
        if let Some(header) = &config.decision_header {
            check_decision(header, &rules)?;
        }
        Ok(Self { rules, decision_header: config.decision_header })
    }

    fn on_request_headers(&self, request: &mut Request, decision: &mut Decision) -> Result<Action> {
        let facts = RequestFacts { request, identity: properties::spiffe_id()?, headers: None };
        let (allowed, name) = self.decide(facts)?;
        if self.decision_header.is_some() {
            *decision = Some(name.clone());
        }
        if allowed {
            return Ok(Action::Continue);
        }
        Ok(Action::Reply(Reply::new(403).body("denied\n").details(format!("denied by {name}"))))
    }

    fn on_response_headers(&self, response: &mut Response, decision: &mut Decision) -> Result<Action> {
        if let (Some(header), Some(decision)) = (&self.decision_header, decision) {
            response.set_header(header, decision)?;
        }
        Ok(Action::Continue)
    }
}

/// What is told in a header must be able to stand in one.
fn check_decision(header: &str, rules: &[Rule]) -> Result<()> {
    if !is_token(header) {
        return Err(Error::new(format!(
            "`decision_header: {header}` is not a header name; use letters, digits and `-`"
        )));
    }
    match rules.iter().find(|rule| !is_plain(&rule.name)) {
        Some(rule) => {
            Err(Error::new(format!("the name `{}` cannot stand in a header; use plain ASCII", rule.name)))
        }
        None => Ok(()),
    }
}

impl Authz {
    /// Whether a request is allowed, and the name of the rule that says so.
    fn decide(&self, mut facts: impl Facts) -> Result<(bool, String)> {
        for rule in &self.rules {
            if rule.fits(&mut facts)? {
                return Ok((rule.allows, rule.name.clone()));
            }
        }
        Ok((false, "default".to_owned()))
    }
}

/// What the rules ask of a request. Headers are read once, when a rule asks for them.
struct RequestFacts<'a> {
    request: &'a Request,
    identity: Option<String>,
    headers: Option<Headers>,
}

impl Facts for RequestFacts<'_> {
    fn identity(&mut self) -> Option<&str> {
        self.identity.as_deref()
    }

    fn method(&mut self) -> Result<String> {
        self.request.method()
    }

    fn path(&mut self) -> Result<String> {
        Ok(path_and_query(&self.request.path()?).0.to_owned())
    }

    fn host(&mut self) -> Result<String> {
        Ok(host_of(&self.request.authority()?))
    }

    fn header_values(&mut self, name: &str) -> Result<Vec<String>> {
        if self.headers.is_none() {
            self.headers = Some(self.request.headers()?);
        }
        let headers = self.headers.iter();
        let values = headers.flat_map(|headers| headers.get_all(name));
        Ok(values.map(|value| String::from_utf8_lossy(value).into_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake {
        identity: Option<&'static str>,
        method: &'static str,
        path: &'static str,
        headers: Vec<(&'static str, &'static str)>,
    }

    impl Facts for Fake {
        fn identity(&mut self) -> Option<&str> {
            self.identity
        }

        fn method(&mut self) -> Result<String> {
            Ok(self.method.to_owned())
        }

        fn path(&mut self) -> Result<String> {
            Ok(self.path.to_owned())
        }

        fn host(&mut self) -> Result<String> {
            Ok("api.example.com".to_owned())
        }

        fn header_values(&mut self, name: &str) -> Result<Vec<String>> {
            let named = self.headers.iter().filter(|(known, _)| *known == name);
            Ok(named.map(|(_, value)| (*value).to_owned()).collect())
        }
    }

    fn authz(config: &str) -> Result<Authz> {
        Authz::new(serde_json::from_str(config).map_err(Error::from)?)
    }

    fn decide(
        config: &str,
        identity: Option<&'static str>,
        method: &'static str,
        path: &'static str,
    ) -> String {
        let fake = Fake { identity, method, path, headers: vec![("x-env", "prod"), ("x-env", "canary")] };
        let (allowed, name) = authz(config).expect("a good configuration").decide(fake).expect("facts");
        format!("{allowed} {name}")
    }

    const ORDERS: Option<&str> = Some("spiffe://mesh.internal/orders");

    #[test]
    fn the_first_rule_that_fits_decides_and_without_one_nobody_may() {
        let config = r#"{"rules": [
            {"name": "no-admin", "deny": ["*"], "path_prefix": "/admin"},
            {"name": "orders-read", "allow": ["spiffe://mesh.internal/orders"], "methods": ["GET"], "path_prefix": "/v1"},
            {"allow": ["spiffe://mesh.internal/ops/*"]}
        ]}"#;
        assert_eq!(decide(config, ORDERS, "GET", "/v1/x"), "true orders-read");
        assert_eq!(decide(config, ORDERS, "POST", "/v1/x"), "false default");
        assert_eq!(decide(config, ORDERS, "GET", "/admin"), "false no-admin");
        assert_eq!(decide(config, None, "GET", "/v1/x"), "false default");
        assert_eq!(decide(config, Some("spiffe://mesh.internal/ops/anna"), "PUT", "/x"), "true rules[2]");
        assert_eq!(decide(config, Some("spiffe://mesh.internal/ops"), "PUT", "/x"), "false default");
        assert_eq!(decide(config, Some("spiffe://mesh.internal/orders2"), "GET", "/v1"), "false default");
    }

    #[test]
    fn anybody_is_an_asterisk_and_anybody_known_is_authenticated() {
        let anybody = r#"{"rules": [{"allow": ["*"]}]}"#;
        assert_eq!(decide(anybody, None, "GET", "/"), "true rules[0]");
        let known = r#"{"rules": [{"allow": ["authenticated"]}]}"#;
        assert_eq!(decide(known, None, "GET", "/"), "false default");
        assert_eq!(decide(known, ORDERS, "GET", "/"), "true rules[0]");
    }

    #[test]
    fn a_header_that_is_repeated_must_fit_with_every_value_to_allow_and_with_one_to_deny() {
        let rule = |kind: &str, value: &str| {
            format!(
                r#"{{"rules": [{{"{kind}": ["*"], "headers": {{"X-Env": "{value}"}}}}, {{"allow": ["*"], "name": "rest"}}]}}"#
            )
        };
        assert_eq!(decide(&rule("deny", "canary"), None, "GET", "/"), "false rules[0]");
        assert_eq!(decide(&rule("allow", "canary"), None, "GET", "/"), "true rest");
        assert_eq!(decide(&rule("deny", "other"), None, "GET", "/"), "true rest");
    }

    #[test]
    fn what_could_not_be_told_or_would_fit_too_much_is_refused() {
        let error = |config: &str| authz(config).expect_err("refused").to_string();
        assert!(
            error(r#"{"rules": [{"allow": ["*"], "hosts": ["*example.com"]}]}"#)
                .contains("as in `*.example.com`")
        );
        assert!(error(r#"{"rules": [], "decision_header": "x y"}"#).contains("is not a header name"));
        let rule = r#"{"rules": [{"name": "caf\u00e9", "allow": ["*"]}], "decision_header": "x-rule"}"#;
        assert!(error(rule).contains("cannot stand in a header"));
    }

    #[test]
    fn hosts_are_compared_in_lower_case_and_by_suffix() {
        let rule = |host: &str| format!(r#"{{"rules": [{{"allow": ["*"], "hosts": ["{host}"]}}]}}"#);
        assert_eq!(decide(&rule("API.example.com"), None, "GET", "/"), "true rules[0]");
        assert_eq!(decide(&rule("*.example.com"), None, "GET", "/"), "true rules[0]");
        assert_eq!(decide(&rule("*.example.org"), None, "GET", "/"), "false default");
    }

    #[test]
    fn a_rule_that_says_nothing_or_both_is_refused_with_the_cure() {
        let message = |config: &str| authz(config).expect_err("refused").to_string();
        assert!(
            message(r#"{"rules": [{"methods": ["GET"]}]}"#)
                .contains("rules[0] says neither `allow` nor `deny`")
        );
        assert!(
            message(r#"{"rules": [{"allow": ["*"], "deny": ["*"]}]}"#).contains("both `allow` and `deny`")
        );
        assert!(message(r#"{"rules": [{"allow": []}]}"#).contains("names nobody"));
        assert!(
            message(r#"{"rules": [{"allow": ["*"], "paths": ["/"]}]}"#).contains("unknown field `paths`")
        );
    }
}
