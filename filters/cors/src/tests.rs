use super::*;

fn filter(config: &str) -> Result<Cors> {
    Cors::compile(serde_json::from_str(config).map_err(Error::from)?)
}

fn good(config: &str) -> Cors {
    filter(config).unwrap_or_else(|error| panic!("{error}"))
}

const APP: &str = r#"{"allow_origins": ["https://app.example.com", "https://*.Partner.example", "http://localhost:3000"],
    "allow_methods": ["PUT", "DELETE"], "allow_headers": ["content-type"], "expose_headers": ["x-total"],
    "max_age": "10m", "allow_credentials": true, "allow_private_network": true}"#;

fn asked<'a>(method: &'a str, origins: &[&'a str]) -> Asked<'a> {
    let method_wanted = method == "OPTIONS";
    let origins = origins.iter().map(|origin| origin.as_bytes()).collect();
    Asked { method, origins, method_wanted, private_network_wanted: false }
}

/// What the response to a request of this origin says.
fn said(filter: &Cors, asked: &Asked<'_>) -> String {
    let answer = filter.answer(asked);
    filter.said(&answer).iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}

#[test]
fn an_origin_that_may_is_told_so_and_others_nothing() {
    let filter = good(APP);
    let told = "vary: origin\naccess-control-allow-origin: https://app.example.com\n\
                access-control-allow-credentials: true\naccess-control-expose-headers: x-total\n";
    assert_eq!(said(&filter, &asked("GET", &["https://app.example.com"])), told);
    for other in [
        "https://evil.example",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil.example",
        "https://APP.example.com",
        "https://app.example.com/",
        "null",
        "",
        "*",
    ] {
        assert_eq!(said(&filter, &asked("GET", &[other])), "vary: origin\n", "{other}");
    }
    assert_eq!(said(&filter, &asked("GET", &[])), "vary: origin\n");
    let two = asked("GET", &["https://app.example.com", "https://app.example.com"]);
    assert_eq!(said(&filter, &two), "vary: origin\n", "a request has one origin");
}

#[test]
fn an_asterisk_stands_for_what_is_below_a_name_and_for_nothing_else() {
    let filter = good(APP);
    let may = |origin: &str| filter.answer(&asked("GET", &[origin])) == Answer::Allowed(origin.to_owned());
    assert!(may("https://a.partner.example") && may("https://a.b.partner.example"));
    for other in [
        "https://partner.example",
        "https://.partner.example",
        "https://evilpartner.example",
        "https://evil.example/.partner.example",
        "https://evil.example#.partner.example",
        "https://evil.example?a.partner.example",
        "https://user@a.partner.example",
        "https://evil.example:1.partner.example",
        "http://a.partner.example",
        "https://a.partner.example:444",
        "https://a.partner.example.evil.example",
        "https://a\u{e9}.partner.example",
    ] {
        assert!(!may(other), "{other}");
    }
}

#[test]
fn preflights_are_answered_and_those_from_elsewhere_refused() {
    let filter = good(APP);
    let told = "vary: origin\naccess-control-allow-origin: http://localhost:3000\n\
                access-control-allow-credentials: true\naccess-control-allow-methods: PUT, DELETE\n\
                access-control-allow-headers: content-type\naccess-control-max-age: 600\n";
    let own = asked("OPTIONS", &["http://localhost:3000"]);
    assert_eq!(said(&filter, &own), told);
    let private = Asked { private_network_wanted: true, ..own };
    assert_eq!(said(&filter, &private), format!("{told}access-control-allow-private-network: true\n"));
    assert_eq!(filter.answer(&asked("OPTIONS", &["https://evil.example"])), Answer::Refused);
    let no_preflight = Asked { method_wanted: false, ..asked("OPTIONS", &["https://app.example.com"]) };
    assert_eq!(filter.answer(&no_preflight), Answer::Allowed("https://app.example.com".to_owned()));
    assert_eq!(filter.answer(&asked("OPTIONS", &[])), Answer::Nothing, "no browser asks so");
}

#[test]
fn everybody_is_an_asterisk_for_everybody_and_never_with_credentials() {
    let everybody = good(r#"{"allow_origins": ["*"], "allow_headers": ["*"]}"#);
    for origin in ["https://a.example", "null"] {
        assert_eq!(said(&everybody, &asked("GET", &[origin])), "access-control-allow-origin: *\n");
    }
    let error = filter(r#"{"allow_origins": ["*"], "allow_credentials": true}"#).expect_err("refused");
    assert!(error.to_string().contains("every page of the web"), "{error}");
}

#[test]
fn requests_from_elsewhere_are_refused_where_that_is_wanted() {
    let filter = good(r#"{"allow_origins": ["https://a.example"], "reject_other_origins": true}"#);
    assert_eq!(filter.answer(&asked("POST", &["https://b.example"])), Answer::Refused);
    assert_eq!(filter.answer(&asked("POST", &["https://a.example", "https://a.example"])), Answer::Refused);
    assert_eq!(filter.answer(&asked("POST", &[])), Answer::Nothing, "no page sent it");
}

#[test]
fn what_is_no_origin_is_refused_with_the_cure() {
    let error = |origin: &str| {
        let config = serde_json::json!({ "allow_origins": [origin] }).to_string();
        filter(&config).expect_err(origin).to_string()
    };
    assert!(error("null").contains("sandbox"));
    assert!(error("https://a.example:443").contains("write `https://a.example`"));
    assert!(error("https://*.a.example:443").contains("write `https://*.a.example`"));
    for wrong in [
        "a.example",
        "https://",
        "https://a.example/",
        "https://*",
        "https://a*.example",
        "https://a..b",
        "https://a.example:",
        "https://a.example:0443",
        "https://a.example:99999",
        "https://a b",
        "https://[::1",
        "https://*.[::1]",
    ] {
        assert!(error(wrong).contains("is not an origin"), "{wrong}: {}", error(wrong));
    }
    good(r#"{"allow_origins": ["https://[2001:db8::1]:8443", "chrome-extension://abcdef"]}"#);
    let other = |config: &str| filter(config).expect_err(config).to_string();
    assert!(other(r#"{"allow_origins": []}"#).contains("is empty"));
    assert!(
        other(r#"{"allow_origins": ["https://a"], "allow_headers": ["a, b"]}"#)
            .contains("`a, b` is not a name")
    );
    let star = r#"{"allow_origins": ["https://a"], "allow_headers": ["*"], "allow_credentials": true}"#;
    assert!(other(star).contains("list the names"));
    assert!(other(r#"{"allow_origins": ["*"], "max_age": 600}"#).contains("expected a string"));
}
