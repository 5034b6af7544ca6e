use super::*;

const GOOD: &str = "0123456789abcdef-good";
const OLD: &str = "0123456789abcdef-old";

fn filter(config: &str) -> Result<ApiKey> {
    let variable = |name: &str| (name == "CI_KEY").then(|| OLD.to_owned());
    ApiKey::compile(serde_json::from_str(config).map_err(Error::from)?, variable)
}

fn good(from: &str) -> ApiKey {
    let config = format!(
        r#"{{"keys": [{{"name": "app", "key": "{GOOD}"}}, {{"name": "ci", "environment": "CI_KEY"}}], "allow": ["app"], "from": {from}}}"#
    );
    filter(&config).expect("a good configuration")
}

/// What becomes of a request, and what it is without its keys.
fn judged(filter: &ApiKey, headers: &[(&str, &str)]) -> (String, Vec<Carried>) {
    let message = Message::new(headers.iter().map(|(name, value)| (*name, value.as_bytes())));
    let carried: std::result::Result<Vec<_>, _> =
        filter.from.iter().map(|source| source.find(&message)).collect();
    match carried {
        Ok(carried) => match filter.judge(carried.iter().flat_map(Carried::keys)) {
            Verdict::Pass(name) => (format!("pass {}", name.unwrap_or("without")), carried),
            Verdict::Refuse(status, why) => (format!("{status} {why}"), carried),
        },
        Err(why) => (format!("401 {why}"), Vec::new()),
    }
}

fn verdict(from: &str, headers: &[(&str, &str)]) -> String {
    judged(&good(from), headers).0
}

#[test]
fn a_key_in_a_header_opens_and_nothing_else_does() {
    let from = r#"[{"header": "X-API-Key"}]"#;
    assert_eq!(verdict(from, &[("x-api-key", GOOD)]), "pass app");
    assert_eq!(verdict(from, &[("x-api-key", &format!(" {GOOD}\t"))]), "pass app");
    for wrong in ["", "x", &GOOD[1..], &format!("{GOOD}x"), &GOOD.to_uppercase(), &format!("{GOOD},{GOOD}")] {
        assert_eq!(verdict(from, &[("x-api-key", wrong)]), "401 unknown key", "{wrong}");
    }
    assert_eq!(verdict(from, &[("x-api-key", OLD)]), "403 key ci is not allowed here");
    assert_eq!(verdict(from, &[]), "401 no key");
    assert_eq!(verdict(from, &[("x-api-key", GOOD), ("x-api-key", GOOD)]), "401 several headers x-api-key");
}

#[test]
fn a_scheme_stands_before_the_key_in_any_case() {
    let from = r#"[{"header": "authorization", "scheme": "Bearer"}]"#;
    for value in [format!("Bearer {GOOD}"), format!("bEARER   {GOOD}")] {
        assert_eq!(verdict(from, &[("authorization", &value)]), "pass app", "{value}");
    }
    for value in [format!("Basic {GOOD}"), GOOD.to_owned(), format!("Bearer{GOOD}"), "Bearer".to_owned()] {
        assert_eq!(verdict(from, &[("authorization", &value)]), "401 no key", "{value}");
    }
    assert_eq!(verdict(from, &[("authorization", "Bearer ")]), "401 no key", "the end is trimmed");
}

#[test]
fn a_key_in_the_query_is_found_however_it_is_encoded_and_taken_out() {
    let filter = good(r#"[{"query": "api_key"}]"#);
    let encoded = GOOD.replace('g', "%67");
    for (path, rest) in [
        (format!("/a?api_key={GOOD}"), "/a"),
        (format!("/a?x=1&api_key={GOOD}&y=%20#f"), "/a?x=1&y=%20"),
        (format!("/a?api%5Fkey={encoded}"), "/a"),
        (format!("/a?api_key={GOOD}&api_key={encoded}&&z"), "/a?&z"),
    ] {
        let (verdict, carried) = judged(&filter, &[(":path", &path)]);
        assert_eq!(verdict, "pass app", "{path}");
        let [Carried::Query { path: left, .. }] = carried.as_slice() else { panic!("{carried:?}") };
        assert_eq!(String::from_utf8_lossy(left), rest);
    }
    for path in [format!("/a?API_KEY={GOOD}"), format!("/a#api_key={GOOD}"), format!("/api_key={GOOD}")] {
        assert_eq!(judged(&filter, &[(":path", &path)]).0, "401 no key", "{path}");
    }
    let two = format!("/?api_key={GOOD}&api_key={OLD}");
    assert_eq!(judged(&filter, &[(":path", &two)]).0, "401 several keys");
}

#[test]
fn a_key_in_a_cookie_is_found_and_taken_out() {
    let filter = good(r#"[{"cookie": "key"}]"#);
    let first = format!("a=1; key=\"{GOOD}\" ;b=\"x; y\"");
    let (verdict, carried) = judged(&filter, &[("cookie", &first), ("cookie", &format!("key={GOOD}"))]);
    assert_eq!(verdict, "pass app");
    let [Carried::Cookie { rest, .. }] = carried.as_slice() else { panic!("{carried:?}") };
    assert_eq!(String::from_utf8_lossy(rest), "a=1; b=\"x; y\"");
    assert_eq!(judged(&filter, &[("cookie", &format!("monkey={GOOD}; key"))]).0, "401 unknown key");
}

#[test]
fn keys_at_several_places_must_agree() {
    let filter = good(r#"[{"header": "x-api-key"}, {"query": "k"}]"#);
    let ask = |header: &str, query: &str| {
        judged(&filter, &[(":path", &format!("/?k={query}")), ("x-api-key", header)]).0
    };
    assert_eq!(ask(GOOD, GOOD), "pass app");
    assert_eq!(ask(GOOD, "other"), "401 several keys");
    assert_eq!(ask("other", GOOD), "401 several keys");
}

#[test]
fn where_keys_are_optional_a_wrong_one_is_refused_all_the_same() {
    let config = format!(r#"{{"keys": [{{"name": "app", "key": "{GOOD}"}}], "optional": true}}"#);
    let filter = filter(&config).expect("a good configuration");
    assert_eq!(judged(&filter, &[]).0, "pass without");
    assert_eq!(judged(&filter, &[("x-api-key", "wrong")]).0, "401 unknown key");
}

#[test]
fn a_digest_stands_for_its_key() {
    // printf %s 0123456789abcdef-good | sha256sum
    let hex: String = Sha(GOOD).to_string();
    let config = |hex: &str| format!(r#"{{"keys": [{{"name": "app", "sha256": "{hex}"}}]}}"#);
    for hex in [hex.clone(), hex.to_uppercase()] {
        let filter = filter(&config(&hex)).expect("a digest");
        assert_eq!(judged(&filter, &[("x-api-key", GOOD)]).0, "pass app");
        assert_eq!(
            judged(&filter, &[("x-api-key", &hex)]).0,
            "401 unknown key",
            "the digest itself is no key"
        );
    }
    for wrong in ["", "00", &format!("+{}", &hex[1..])] {
        assert!(filter(&config(wrong)).expect_err(wrong).to_string().contains("is not a SHA-256"), "{wrong}");
    }
}

struct Sha(&'static str);

impl std::fmt::Display for Sha {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use sha2::Digest as _;
        sha2::Sha256::digest(self.0).iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_with_the_cure_and_without_the_key() {
    let error = |config: &str| filter(config).expect_err(config).to_string();
    let key = format!(r#"{{"name": "app", "key": "{GOOD}"}}"#);
    assert!(error(r#"{"keys": []}"#).contains("`keys` is empty"));
    assert!(error(r#"{"keys": [{"name": "app", "key": "short"}]}"#).contains("less than 16 bytes"));
    assert!(error(r#"{"keys": [{"name": "app"}]}"#).contains("exactly one of"));
    assert!(error(r#"{"keys": [{"name": "", "key": "x"}]}"#).contains("`name` is empty"));
    assert!(error(r#"{"keys": [{"name": "a", "environment": "NO"}]}"#).contains("environment: [NO]"));
    assert!(
        error(&format!(r#"{{"keys": [{key}], "from": [{{"header": "a", "query": "b"}}]}}"#))
            .contains("exactly one of")
    );
    assert!(error(&format!(r#"{{"keys": [{key}], "from": [{{"header": "a b"}}]}}"#)).contains("not a name"));
    assert!(
        error(&format!(r#"{{"keys": [{key}], "from": [{{"query": "a", "scheme": "Bearer"}}]}}"#))
            .contains("`scheme`")
    );
    assert!(
        error(&format!(r#"{{"keys": [{key}], "allow": ["ap"]}}"#))
            .contains("there is no key `ap`; there are app")
    );
    assert!(error(&format!(r#"{{"keys": [{key}], "realm": "\"x"}}"#)).contains("`realm`"));
    assert!(error(&format!(r#"{{"keys": [{key}], "header": "x"}}"#)).contains("unknown field `header`"));
    let twice = error(&format!(r#"{{"keys": [{key}, {{"name": "b", "key": "{GOOD}"}}]}}"#));
    assert!(twice.contains("`app` and `b` are the same key") && !twice.contains(GOOD), "{twice}");
}
