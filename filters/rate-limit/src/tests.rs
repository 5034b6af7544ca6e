use super::*;

fn limiter(config: &str) -> Result<Limiter> {
    Limiter::compile(serde_json::from_str(config).map_err(Error::from)?)
}

#[test]
fn a_limit_is_for_its_methods_and_paths() {
    let config =
        r#"{"limits": [{"requests": 1, "per": "1s", "methods": ["POST"], "path_prefix": "/login"}]}"#;
    let limiter = limiter(config).expect("a good configuration");
    let limit = limiter.limits.first().expect("a limit");
    assert!(limit.is_for("POST", "/login/x"));
    assert!(!limit.is_for("GET", "/login") && !limit.is_for("POST", "/") && !limit.is_for("post", "/login"));
}

#[test]
fn clients_are_told_apart_by_address_and_those_of_ipv6_by_network() {
    let limiter =
        limiter(r#"{"limits": [{"by": ["source.address"], "requests": 1, "per": "1s"}]}"#).expect("good");
    assert_eq!(limiter.limits.first().expect("a limit").by, [By::Client]);
    let network = |text: &str| limiter.network(parse(text));
    assert_eq!(network("10.0.0.1:1"), network("10.0.0.1:2"));
    assert_eq!(network("[::ffff:10.0.0.1]:1"), network("10.0.0.1:2"));
    assert_ne!(network("10.0.0.1:1"), network("10.0.0.2:1"));
    assert_eq!(network("[2001:db8::1]:1"), network("[2001:db8::ffff:1]:2"));
    assert_ne!(network("[2001:db8:0:1::1]:1"), network("[2001:db8:0:2::1]:1"));
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_with_the_cure() {
    let error = |config: &str| limiter(config).expect_err(config).to_string();
    let with = |limit: &str| error(&format!(r#"{{"limits": [{{{limit}}}]}}"#));
    assert!(error(r#"{"limits": []}"#).contains("add a limit"));
    assert!(with(r#""requests": 0, "per": "1s""#).contains("is no rate"));
    assert!(with(r#""requests": 1, "per": "0s""#).contains("is no rate"));
    assert!(with(r#""requests": 1, "per": "1s", "burst": 0"#).contains("is no rate"));
    assert!(with(r#""requests": 1, "per": "1""#).contains("is not a duration"));
    assert!(with(r#""requests": 1, "per": "1s", "by": ["a..b"]"#).contains("`a..b` is not a property"));
    assert!(with(r#""requests": 1, "per": "1s", "methods": [""]"#).contains("is not a method"));
    assert!(with(r#""requests": 1, "per": "1s", "name": """#).contains("cannot stand"));
    let good = r#"{"name": "a", "requests": 1, "per": "1s"}"#;
    assert!(error(&format!(r#"{{"limits": [{good}, {good}]}}"#)).contains("two limits are called `a`"));
    assert!(error(&format!(r#"{{"limits": [{good}], "status": 200}}"#)).contains("use 400 to 599"));
    assert!(error(&format!(r#"{{"limits": [{good}], "max_keys": 0}}"#)).contains("out of range"));
    assert!(error(&format!(r#"{{"limits": [{good}], "ipv6_prefix": 0}}"#)).contains("1 to 128"));
}
