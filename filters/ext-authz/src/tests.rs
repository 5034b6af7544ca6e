use super::*;

fn settings(config: &str) -> Result<Settings> {
    Settings::compile(serde_json::from_str(config).map_err(Error::from)?)
}

fn good(config: &str) -> Settings {
    settings(config).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_service_is_told_what_it_is_allowed_to_know() {
    let all =
        good(r#"{"service": {"grpc": {"cluster": "a"}}, "disallowed_headers": ["Cookie", "x-secret-*"]}"#);
    assert!(all.tells("x-a") && all.tells(":path") && !all.tells("cookie") && !all.tells("x-secret-b"));
    let some = good(r#"{"service": {"grpc": {"cluster": "a"}}, "allowed_headers": ["X-A", "b-*"]}"#);
    assert!(some.tells("x-a") && some.tells("b-c") && !some.tells("authorization") && !some.tells("x-ab"));
    let over_http = good(r#"{"service": {"http": {"cluster": "a"}}}"#);
    assert!(over_http.tells("authorization") && !over_http.tells("cookie"));
    let without = good(r#"{"service": {"http": {"cluster": "a"}}, "disallowed_headers": ["authorization"]}"#);
    assert!(!without.tells("authorization"), "what is not to be told is not told");
}

#[test]
fn headers_of_one_name_are_one_and_all_is_text() {
    let mut headers = Vec::new();
    for (name, value) in [("x", &b"1"[..]), ("cookie", b"a=b"), ("x", b"2\xff"), ("cookie", b"c=d")] {
        add(&mut headers, name, &text(value));
    }
    let wanted =
        [("x", "1,2!"), ("cookie", "a=b; c=d")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(headers, wanted);
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_with_the_cure() {
    let error = |config: &str| settings(config).expect_err(config).to_string();
    let with = |more: &str| error(&format!(r#"{{"service": {{"http": {{"cluster": "a"}}}}, {more}}}"#));
    assert!(error(r#"{"service": {}}"#).contains("exactly one of `grpc` and `http`"));
    assert!(error(r#"{"service": {"grpc": {"cluster": ""}}}"#).contains("grants.clusters"));
    assert!(
        error(r#"{"service": {"http": {"cluster": "a", "path_prefix": "x"}}}"#).contains("begin with `/`")
    );
    assert!(
        error(r#"{"service": {"http": {"cluster": "a", "upstream_headers": ["host"]}}}"#).contains("`host`")
    );
    assert!(
        error(r#"{"service": {"http": {"cluster": "a", "upstream_headers": [":path"]}}}"#)
            .contains("`:path`")
    );
    assert!(with(r#""timeout": "0s""#).contains("more than 0"));
    assert!(with(r#""status_on_error": 200"#).contains("400 to 599"));
    assert!(with(r#""body": {"max_bytes": 0}"#).contains("leave `body` out"));
    assert!(with(r#""allowed_headers": ["a b"]"#).contains("not a header name"));
    assert!(with(r#""cluster": "a""#).contains("unknown field `cluster`"));
}
