use super::*;

#[derive(Clone)]
struct Fake {
    address: Option<&'static str>,
    server_name: Option<&'static str>,
    offered: Offered,
    certificate: bool,
    identity: Option<&'static str>,
    dns: Option<&'static str>,
    digest: Option<&'static str>,
}

impl Facts for Fake {
    fn address(&self) -> Option<IpAddr> {
        self.address.and_then(filter_parts::address::parse)
    }

    fn server_name(&self) -> Result<Option<String>> {
        Ok(self.server_name.map(str::to_owned))
    }

    fn offered(&self) -> Result<Offered> {
        Ok(self.offered.clone())
    }

    fn has_certificate(&self) -> Result<bool> {
        Ok(self.certificate)
    }

    fn identity(&self) -> Result<Option<String>> {
        Ok(self.identity.map(str::to_owned))
    }

    fn dns_name(&self) -> Result<Option<String>> {
        Ok(self.dns.map(str::to_owned))
    }

    fn digest(&self) -> Result<Option<String>> {
        Ok(self.digest.map(str::to_owned))
    }
}

const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A connection in the clear.
fn plain() -> Fake {
    Fake {
        address: Some("10.0.0.1:4000"),
        server_name: None,
        offered: Offered::Known(Vec::new()),
        certificate: false,
        identity: None,
        dns: None,
        digest: None,
    }
}

fn tls(server_name: &'static str, offered: &[&str]) -> Fake {
    let offered = Offered::Known(offered.iter().map(|name| name.as_bytes().to_vec()).collect());
    Fake { server_name: Some(server_name), offered, ..plain() }
}

fn orders() -> Fake {
    Fake {
        certificate: true,
        identity: Some("spiffe://mesh.internal/orders"),
        dns: Some("orders.internal"),
        digest: Some(DIGEST),
        ..tls("api.internal", &["h2"])
    }
}

fn compiled(rule: &str) -> Result<Rule> {
    serde_json::from_str::<RuleConfig>(rule).map_err(Error::from)?.compile(0)
}

fn fits(rule: &str, facts: &Fake) -> bool {
    let rule = compiled(rule).unwrap_or_else(|error| panic!("{error}"));
    rule.fits(facts).expect("facts")
}

#[test]
fn callers_are_known_by_their_verified_certificate_alone() {
    for who in [
        "spiffe://mesh.internal/orders",
        "spiffe://mesh.internal/*",
        "authenticated",
        "certificate",
        "dns:Orders.internal",
        "dns:*.internal",
    ] {
        let rule = format!(r#"{{"allow": ["{who}"]}}"#);
        assert!(fits(&rule, &orders()), "{who}");
        assert!(!fits(&rule, &Fake { certificate: false, ..orders() }), "{who} of nobody");
        assert!(!fits(&rule, &plain()), "{who}");
    }
    let upper = DIGEST.to_uppercase();
    assert!(fits(&format!(r#"{{"allow": ["sha256:{upper}"]}}"#), &orders()));
    assert!(!fits(&format!(r#"{{"allow": ["sha256:{}"]}}"#, "0".repeat(64)), &orders()));
    assert!(!fits(r#"{"allow": ["spiffe://mesh.internal/order"]}"#, &orders()));
    assert!(!fits(r#"{"allow": ["authenticated"]}"#, &Fake { identity: None, ..orders() }));
    assert!(fits(r#"{"allow": ["*"]}"#, &plain()));
}

#[test]
fn server_names_are_exact_or_below_one() {
    let rule = r#"{"allow": ["*"], "server_names": ["API.internal.", "*.apps.internal"]}"#;
    assert!(fits(rule, &tls("api.internal", &[])) && fits(rule, &tls("a.b.apps.internal", &[])));
    assert!(!fits(rule, &tls("apps.internal", &[])) && !fits(rule, &tls("xapi.internal", &[])));
    assert!(!fits(rule, &plain()), "who asks for none is not meant");
}

#[test]
fn all_protocols_must_fit_to_allow_and_one_to_deny() {
    let rule = |kind: &str| format!(r#"{{"{kind}": ["*"], "alpn": ["h2", "http/1.1"]}}"#);
    let (allow, deny) = (rule("allow"), rule("deny"));
    for (offered, allows, denies) in [
        (tls("a", &["h2"]), true, true),
        (tls("a", &["h2", "http/1.1"]), true, true),
        (tls("a", &["h2", "smuggled"]), false, true),
        (tls("a", &["H2"]), false, false),
        (tls("a", &[]), false, false),
        (plain(), false, false),
        (Fake { offered: Offered::Unknown, ..tls("a", &[]) }, false, true),
    ] {
        assert_eq!(
            (fits(&allow, &offered), fits(&deny, &offered)),
            (allows, denies),
            "{:?}",
            offered.offered
        );
    }
}

#[test]
fn addresses_are_compared_by_what_they_are_and_an_unknown_one_is_only_denied() {
    let rule = |kind: &str| format!(r#"{{"{kind}": ["*"], "addresses": ["10.0.0.0/8", "2001:db8::/32"]}}"#);
    let at = |address| Fake { address, ..plain() };
    for inside in ["10.2.3.4:1", "[::ffff:10.2.3.4]:1", "[2001:db8::1]:1"] {
        assert!(fits(&rule("allow"), &at(Some(inside))), "{inside}");
    }
    for outside in ["11.0.0.1:1", "[::10.2.3.4]:1", "[2001:db9::1]:1"] {
        assert!(!fits(&rule("allow"), &at(Some(outside))), "{outside}");
        assert!(!fits(&rule("deny"), &at(Some(outside))), "{outside}");
    }
    assert!(!fits(&rule("allow"), &at(None)) && fits(&rule("deny"), &at(None)));
}

#[test]
fn all_that_a_rule_sets_must_fit() {
    let rule = r#"{"allow": ["authenticated"], "server_names": ["api.internal"], "alpn": ["h2"], "addresses": ["10.0.0.0/8"]}"#;
    assert!(fits(rule, &orders()));
    for other in [
        Fake { certificate: false, ..orders() },
        Fake { server_name: Some("other.internal"), ..orders() },
        Fake { offered: Offered::Known(vec![b"http/1.1".to_vec()]), ..orders() },
        Fake { address: Some("192.0.2.1:1"), ..orders() },
    ] {
        assert!(!fits(rule, &other));
    }
}

#[test]
fn a_rule_that_makes_no_sense_is_refused_with_the_cure() {
    let error = |rule: &str| compiled(rule).expect_err(rule).to_string();
    assert!(error("{}").contains("rules[0] says neither"));
    assert!(error(r#"{"allow": ["*"], "deny": ["*"]}"#).contains("both"));
    assert!(error(r#"{"allow": []}"#).contains("names nobody"));
    assert!(error(r#"{"allow": ["orders"]}"#).contains("`orders` is nobody; write"));
    assert!(error(r#"{"allow": ["sha256:00"]}"#).contains("64 hexadecimal digits"));
    assert!(error(r#"{"allow": ["dns:*"]}"#).contains("no pattern of names"));
    assert!(error(r#"{"allow": ["*"], "server_names": ["*api.internal"]}"#).contains("`*.api.internal`"));
    assert!(error(r#"{"allow": ["*"], "alpn": [""]}"#).contains("empty protocol"));
    assert!(error(r#"{"allow": ["*"], "addresses": ["10.0.0.1/8"]}"#).contains("write `10.0.0.0/8`"));
    assert!(error(r#"{"allow": ["*"], "sni": []}"#).contains("unknown field `sni`"));
}
