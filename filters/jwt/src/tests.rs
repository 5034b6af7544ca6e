//! Tokens that another implementation has signed.

mod signer;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use self::signer::{Signer, b64};
use crate::key::{Key, read_set};
use crate::token::{Token, Wanted};

fn keys(set: &[Value]) -> Vec<Key> {
    read_set(json!({ "keys": set }).to_string().as_bytes()).expect("a set of keys").0
}

fn is_signed(token: &Token, keys: &[Key]) -> bool {
    token.candidates(keys).any(|key| token.is_signed_with(key))
}

fn is_good(token: &str, keys: &[Key]) -> bool {
    is_signed(&Token::parse(token.as_bytes()).expect("a token"), keys)
}

#[test]
fn each_algorithm_verifies_what_another_implementation_has_signed() {
    for (signer, algorithms) in [
        (Signer::rsa(), &["RS256", "RS384", "RS512"][..]),
        (Signer::p256(), &["ES256"]),
        (Signer::p384(), &["ES384"]),
        (Signer::ed(), &["EdDSA", "Ed25519"]),
    ] {
        let (own, other) = (
            keys(&[signer.jwk(None)]),
            keys(&[
                Signer::rsa().jwk(None),
                Signer::p256().jwk(None),
                Signer::p384().jwk(None),
                Signer::ed().jwk(None),
            ]),
        );
        for alg in algorithms {
            let token = signer.token(&json!({ "alg": alg }), &json!({ "sub": "anna" }));
            assert!(is_good(&token, &own), "{alg}");
            assert!(!is_good(&token, &other), "{alg} by another key");
            let (message, signature) = token.rsplit_once('.').expect("a signature");
            let mut bytes = BASE64URL_NOPAD.decode(signature.as_bytes()).expect("base64url");
            for cut in [0, 1, bytes.len() - 1] {
                let cut = b64(bytes.get(..cut).expect("a part"));
                assert!(!is_good(&format!("{message}.{cut}"), &own), "{alg} cut short");
            }
            bytes.iter_mut().for_each(|byte| *byte = 0);
            assert!(!is_good(&format!("{message}.{}", b64(bytes)), &own), "{alg} of zeros");
            let claims = b64(json!({ "sub": "root" }).to_string());
            let head = message.split_once('.').expect("a head").0;
            assert!(!is_good(&format!("{head}.{claims}.{signature}"), &own), "{alg} with other claims");
        }
    }
}

#[test]
fn no_token_says_by_what_it_is_verified() {
    let rsa = Signer::rsa();
    let own = keys(&[rsa.jwk(None)]);
    let refused = |token: &str| Token::parse(token.as_bytes()).map(|_| ()).expect_err("refused");
    let claims = b64(json!({ "sub": "root" }).to_string());
    for alg in ["none", "None", "NONE", "", "HS256", "HS512", "rs256", "PS256", "ES256K", "RS256 "] {
        let head = b64(json!({ "alg": alg }).to_string());
        for signature in ["", "AAAA"] {
            assert_eq!(refused(&format!("{head}.{claims}.{signature}")), "algorithm not supported", "{alg}");
        }
    }
    // The key that it brings along is nobody's.
    let other = Signer::rsa();
    let brought = json!({ "alg": "RS256", "jwk": other.jwk(None), "jku": "https://evil.example/keys" });
    assert!(!is_good(&other.token(&brought, &json!({ "sub": "root" })), &own));
    // A signature of one algorithm is none of another, whatever the head says.
    for (alg, head) in [("RS256", "ES256"), ("RS256", "EdDSA"), ("RS256", "RS512")] {
        let message = format!("{}.{claims}", b64(json!({ "alg": head }).to_string()));
        let token = format!("{message}.{}", b64(rsa.sign(alg, message.as_bytes())));
        assert!(!is_good(&token, &own), "{head}");
    }
    let mut only = rsa.jwk(None);
    only["alg"] = "RS512".into();
    assert!(
        !is_good(&rsa.token(&json!({ "alg": "RS256" }), &json!({})), &keys(&[only])),
        "a key that is for RS512"
    );
}

#[test]
fn a_token_that_is_malformed_is_refused() {
    let refused = |token: &str| Token::parse(token.as_bytes()).map(|_| ()).expect_err(token);
    let (head, claims) = (b64(r#"{"alg":"RS256"}"#), b64("{}"));
    for token in [
        "",
        ".",
        "..",
        "a.b",
        &format!("{head}.{claims}"),
        &format!("{head}.{claims}.AA.AA"),
        &format!("{head}.{claims}.A"),
        &format!("{head}.{claims}.AA=="),
        &format!("{head}=.{claims}.AAAA"),
        &format!("{head}.{claims}.AB"),
    ] {
        assert!(refused(token).starts_with("malformed"), "{token}: {}", refused(token));
    }
    for (head, why) in [
        (r#"{"alg":"RS256","alg":"none"}"#, "malformed head of the token"),
        (r#"{"alg":["RS256"]}"#, "malformed head of the token"),
        (r#"{}"#, "malformed head of the token"),
        (r#"{"alg":"RS256","crit":["exp"]}"#, "token with extensions"),
        (r#"{"alg":"RS256","b64":false}"#, "token with extensions"),
    ] {
        assert_eq!(refused(&format!("{}.{claims}.AAAA", b64(head))), why);
    }
    for claims in [
        "[]",
        "1",
        r#"{"exp":"tomorrow"}"#,
        r#"{"exp":1,"exp":99999999999}"#,
        r#"{"iss":1}"#,
        r#"{"aud":1}"#,
        r#"{"exp":1e999}"#,
    ] {
        assert_eq!(refused(&format!("{head}.{}.AAAA", b64(claims))), "malformed claims", "{claims}");
    }
    assert_eq!(refused(&"a".repeat(20_000)), "token over 16 KiB");
}

#[test]
fn time_and_audience_are_checked_with_some_leeway() {
    let audiences = ["api".to_owned(), "web".to_owned()];
    let check = |claims: Value, expires: bool| {
        let token = Signer::ed().token(&json!({ "alg": "EdDSA" }), &claims);
        let token = Token::parse(token.as_bytes()).expect("a token");
        token.check(&Wanted { audiences: &audiences, expires, leeway: 60.0 }, 1000.0)
    };
    for (claims, outcome) in [
        (json!({ "aud": "api", "exp": 1000 }), Ok(())),
        (json!({ "aud": "api", "exp": 940.5 }), Ok(())),
        (json!({ "aud": "api", "exp": 940 }), Err("token expired")),
        (json!({ "aud": "api", "exp": -1 }), Err("token expired")),
        (json!({ "aud": "api" }), Err("token without end")),
        (json!({ "aud": "api", "exp": null }), Err("token without end")),
        (json!({ "aud": "api", "exp": 2000, "nbf": 1060 }), Ok(())),
        (json!({ "aud": "api", "exp": 2000, "nbf": 1061 }), Err("token not valid yet")),
        (json!({ "aud": ["x", "web"], "exp": 2000 }), Ok(())),
        (json!({ "aud": [], "exp": 2000 }), Err("token for somebody else")),
        (json!({ "aud": "API", "exp": 2000 }), Err("token for somebody else")),
        (json!({ "aud": "api,web", "exp": 2000 }), Err("token for somebody else")),
        (json!({ "exp": 2000 }), Err("token for somebody else")),
    ] {
        assert_eq!(check(claims.clone(), true), outcome, "{claims}");
    }
    assert_eq!(check(json!({ "aud": "api" }), false), Ok(()));
}

#[test]
fn keys_are_found_by_name_or_tried_in_order() {
    let (first, second) = (Signer::ed(), Signer::ed());
    let set = keys(&[first.jwk(Some("1")), second.jwk(Some("2"))]);
    let by = |kid: Option<&str>| match kid {
        Some(kid) => second.token(&json!({ "alg": "EdDSA", "kid": kid }), &json!({})),
        None => second.token(&json!({ "alg": "EdDSA" }), &json!({})),
    };
    assert!(is_good(&by(Some("2")), &set) && is_good(&by(None), &set));
    assert!(!is_good(&by(Some("1")), &set), "the name is of another key");
    let unknown = Token::parse(by(Some("3")).as_bytes()).expect("a token");
    assert!(!unknown.knows_key(&set) && !is_signed(&unknown, &set));
}

#[test]
fn a_set_is_read_for_what_is_of_use_in_it() {
    let (rsa, ed) = (Signer::rsa(), Signer::ed());
    let mut encrypting = rsa.jwk(Some("enc"));
    encrypting["use"] = "enc".into();
    let mut signing = rsa.jwk(Some("ops"));
    signing["key_ops"] = json!(["sign"]);
    let mut weak = ed.jwk(Some("weak"));
    weak["x"] = b64([0; 32]).into();
    let mut off = Signer::p256().jwk(Some("off"));
    off["y"] = off["x"].clone();
    let small = json!({ "kty": "RSA", "kid": "small", "n": b64([0xc5; 128]), "e": "AQAB" });
    let set = json!({ "keys": [
        encrypting, signing, weak, off, small, { "kty": "oct", "k": "c2VjcmV0" }, { "kty": "EC", "crv": "secp256k1" }, 7, ed.jwk(Some("good")),
    ] });
    let (keys, odd) = read_set(set.to_string().as_bytes()).expect("one is of use");
    assert_eq!(keys.iter().map(|key| key.kid.as_deref()).collect::<Vec<_>>(), [Some("good")]);
    assert_eq!(odd.len(), 4, "{odd:?}");
    for (text, why) in [
        ("", "no set of keys"),
        ("{}", "no set of keys"),
        (r#"{"keys":[]}"#, "none for RS"),
        (r#"{"keys":[{"kty":"RSA"}]}"#, "`n` is missing"),
    ] {
        assert!(read_set(text.as_bytes()).expect_err(text).contains(why), "{text}");
    }
}

#[test]
fn claims_are_told_as_text_unless_one_could_be_taken_for_several() {
    let claims = json!({ "sub": "anna", "n": 7, "roles": ["a", "b"], "odd": ["a,b"], "deep": { "x": { "y": true } }, "none": null,
        "https://a.example/b": "c", "nested": [["a"]] });
    let token = Signer::ed().token(&json!({ "alg": "EdDSA" }), &claims);
    let token = Token::parse(token.as_bytes()).expect("a token");
    let claim = |path: &[&str]| token.claim(&path.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    for (path, text) in [
        (&["sub"][..], Some("anna")),
        (&["n"], Some("7")),
        (&["roles"], Some("a,b")),
        (&["odd"], None),
        (&["nested"], None),
        (&["deep", "x", "y"], Some("true")),
        (&["deep", "x"], Some(r#"{"y":true}"#)),
        (&["deep", "z"], None),
        (&["sub", "x"], None),
        (&["none"], None),
        (&["https://a.example/b"], Some("c")),
        (&[], None),
    ] {
        assert_eq!(claim(path).as_deref(), text, "{path:?}");
    }
}
