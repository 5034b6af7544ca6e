use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::*;

/// Good and bad, as `serde_json` has it, too.
const TEXTS: [&str; 48] = [
    "null",
    "true",
    " false ",
    "0",
    "-0",
    "7",
    "-7",
    "18446744073709551615",
    "-9223372036854775808",
    "1.5",
    "-2.25e2",
    "1E+3",
    "12e-1",
    "\"\"",
    r#""a\"b\\c\/\b\f\n\r\t""#,
    r#""\u00e4\ud83d\ude00 ä😀""#,
    "[]",
    "[ ]",
    "[1, [2], {}]",
    "{}",
    r#"{ "a" : 1 , "b" : [ ] }"#,
    r#"{"a":{"b":null}}"#,
    "",
    " ",
    "nul",
    "truex",
    "tru",
    "01",
    "-",
    "1.",
    ".5",
    "1e",
    "+1",
    "\"",
    "\"\u{1}\"",
    r#""\x""#,
    r#""\u12""#,
    r#""\ud800""#,
    r#""\ud800\u0041""#,
    r#""\udc00""#,
    "[1",
    "[1,]",
    "[,1]",
    "{\"a\"}",
    "{\"a\":}",
    "{\"a\":1,}",
    "{a:1}",
    "1 2",
];

#[test]
fn what_is_json_is_read_as_serde_json_reads_it_and_what_is_none_is_refused() {
    for text in TEXTS {
        let theirs: Option<Value> = serde_json::from_str(text).ok();
        // `-0` is a fraction to the one and a whole number to the other.
        let ours: Option<Value> = read(text.as_bytes()).ok();
        let same = ours == theirs
            || ours.as_ref().zip(theirs.as_ref()).is_some_and(|(a, b)| a.as_f64() == b.as_f64());
        assert!(same, "{text}: {ours:?}, not {theirs:?}");
    }
    let deep = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
    assert!(read::<Value>(deep(127).as_bytes()).is_ok() && read::<Value>(deep(100_000).as_bytes()).is_err());
    assert!(read::<Value>(b"\"\xff\"").is_err());
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Plain,
    One(u8),
    Two(u8, u8),
    Named { a: Option<String> },
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Config {
    kinds: Vec<Kind>,
    ports: BTreeMap<u16, f64>,
    #[serde(default)]
    wrapped: Option<Wrapped>,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Wrapped(char);

#[test]
fn types_are_read_as_serde_describes_them() {
    let text = r#"{"kinds": ["plain", {"one": 1}, {"two": [1, 2]}, {"named": {"a": null}}],
                   "ports": {"80": 1, "443": 0.5}, "wrapped": "x"}"#;
    let config: Config = read(text.as_bytes()).expect("a configuration");
    assert_eq!(config, serde_json::from_str(text).expect("the same"));
    assert_eq!(config.kinds, [Kind::Plain, Kind::One(1), Kind::Two(1, 2), Kind::Named { a: None }]);
    let error = |text: &str| read::<Config>(text.as_bytes()).expect_err("refused").to_string();
    assert_eq!(
        error("{\n  \"kind\": 1}"),
        "unknown field `kind`, expected one of `kinds`, `ports`, `wrapped` at line 2 column 8"
    );
    assert!(error(r#"{"kinds": [{"one": 256}]}"#).starts_with("invalid value: integer `256`, expected u8"));
    assert!(error(r#"{"kinds": 1.5}"#).starts_with("invalid type: number `1.5`, expected a sequence"));
    for (what, shown) in [
        ("{}", "map"),
        ("\"a\\n\"", "string \"a\\n\""),
        ("null", "null"),
        ("true", "boolean `true`"),
        ("-7", "integer `-7`"),
    ] {
        let told = error(&format!("{{\"kinds\": {what}}}"));
        assert!(told.starts_with(&format!("invalid type: {shown}, expected a sequence")), "{told}");
    }
    // A struct has names, also where serde could do without.
    assert!(error("[[], {}]").starts_with("invalid type: sequence, expected struct Config"));
    assert!(error(r#"{"kinds": []}"#).starts_with("missing field `ports`"));
}
