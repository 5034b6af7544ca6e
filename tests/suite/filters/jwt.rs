//! `jwt`.

#[path = "../../../filters/jwt/src/tests/signer.rs"]
mod signer;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use http::Response;
use serde_json::{Value, json};
use weir_tests::http::{full, mirror, upstream};
use weir_tests::upstream::Upstream;
use weir_tests::{Gateway, Setup};

use self::signer::{Signer, b64};
use super::{ask, plain, plain_config};

const ISSUER: &str = "https://issuer.example";

fn soon() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + 600
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": "api", "sub": "anna", "exp": soon(), "realm_access": { "roles": ["a", "b"] } })
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

/// A provider of these keys.
fn with_keys(keys: &[Value]) -> String {
    let provider = json!({
        "issuer": ISSUER,
        "audiences": ["api"],
        "algorithms": ["RS256", "ES256", "ES384", "EdDSA"],
        "keys": keys,
        "claims_to_headers": { "x-user": "sub", "x-roles": "realm_access.roles" },
    });
    json!({ "providers": [provider] }).to_string()
}

/// A gateway as the filter's page has it: to verify takes more than a filter that does not give way may.
fn preemptible(config: &str, upstream: &Upstream) -> Gateway {
    let config = plain_config("jwt", config, upstream).replace("config:", "scheduling: preemptible, config:");
    Setup::new().plugin("jwt").config(config).start()
}

#[tokio::test]
async fn each_algorithm_opens_and_the_upstream_learns_who_it_is() {
    let mirror = mirror().await;
    let signers = [
        (Signer::rsa(), "RS256"),
        (Signer::p256(), "ES256"),
        (Signer::p384(), "ES384"),
        (Signer::ed(), "EdDSA"),
    ];
    let keys: Vec<Value> = signers.iter().map(|(signer, alg)| signer.jwk(Some(alg))).collect();
    let gateway = preemptible(&with_keys(&keys), &mirror);
    for (signer, alg) in &signers {
        let token = signer.token(&json!({ "alg": alg, "kid": alg }), &claims());
        let forged = "x-user: root\r\nX-Roles: admin\r\nx-roles: more\r\n";
        let answer = ask(&gateway, "GET", "/", &format!("{forged}{}", bearer(&token))).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{alg}: {answer}");
        assert!(
            answer.contains("\nx-user: anna\n") && answer.contains("\nx-roles: a,b\n"),
            "{alg}: {answer}"
        );
        for gone in [token.as_str(), "authorization", "root", "admin", "more"] {
            assert!(!answer.contains(gone), "{alg}: {gone} in {answer}");
        }
        let (message, _) = token.rsplit_once('.').expect("a signature");
        let other = format!("{message}.{}", b64(signer.sign(alg, b"another message")));
        assert!(ask(&gateway, "GET", "/", &bearer(&other)).await.starts_with("HTTP/1.1 401"), "{alg}");
    }
    gateway.wait_for_access("wrong signature");
}

#[tokio::test]
async fn what_is_no_good_is_challenged_and_only_the_log_says_why() {
    let mirror = mirror().await;
    let (rsa, ed) = (Signer::rsa(), Signer::ed());
    let gateway = preemptible(&with_keys(&[rsa.jwk(Some("1")), ed.jwk(Some("2"))]), &mirror);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims();
        change(&mut claims);
        bearer(&ed.token(&json!({ "alg": "EdDSA", "kid": "2" }), &claims))
    };
    let unsigned = |head: Value, signature: &[u8]| {
        bearer(&format!("{}.{}.{}", b64(head.to_string()), b64(claims().to_string()), b64(signature)))
    };
    let good = with(&|_| ());
    let modulus = rsa.jwk(None)["n"].as_str().expect("a modulus").to_owned();
    for (headers, why) in [
        (String::new(), "no token"),
        ("authorization: Basic eDp5\r\n".to_owned(), "no token"),
        (unsigned(json!({ "alg": "none" }), b""), "algorithm not supported"),
        (unsigned(json!({ "alg": "HS256", "kid": "1" }), modulus.as_bytes()), "algorithm not supported"),
        (unsigned(json!({ "alg": "RS256", "kid": "2" }), b"x"), "unknown key"),
        (unsigned(json!({ "alg": "EdDSA", "kid": "1" }), b"x"), "unknown key"),
        (with(&|claims| claims["iss"] = "https://evil.example".into()), "unknown issuer"),
        (with(&|claims| claims["iss"] = Value::Null), "unknown issuer"),
        (with(&|claims| claims["aud"] = "other".into()), "token for somebody else"),
        (with(&|claims| claims["exp"] = (soon() - 700).into()), "token expired"),
        (with(&|claims| claims["nbf"] = soon().into()), "token not valid yet"),
        (with(&|claims| claims["sub"] = "anna\r\nx-admin: yes".into()), "a claim cannot stand in a header"),
        (format!("{good}{good}"), "several headers with tokens"),
        (bearer("a.b.c"), "malformed token"),
    ] {
        let answer = ask(&gateway, "GET", "/", &headers).await;
        assert!(answer.starts_with("HTTP/1.1 401") && answer.ends_with("unauthorized\n"), "{why}: {answer}");
        let error = if why == "no token" { "" } else { ", error=\"invalid_token\"" };
        assert!(
            answer.contains(&format!("www-authenticate: Bearer realm=\"api\"{error}\r\n")),
            "{why}: {answer}"
        );
        assert_eq!(gateway.wait_for_access(why)["filter"], "jwt");
    }
    assert!(ask(&gateway, "GET", "/", &good).await.starts_with("HTTP/1.1 200"));
}

/// An issuer that serves keys, and counts how often.
async fn issuer(keys: &Arc<Mutex<Option<Vec<Value>>>>) -> (Upstream, Arc<AtomicUsize>) {
    let (keys, asked) = (Arc::clone(keys), Arc::<AtomicUsize>::default());
    let counter = Arc::clone(&asked);
    let upstream = upstream(move |request| {
        assert_eq!(
            (request.uri().path(), request.headers()["host"].as_bytes()),
            ("/jwks", &b"issuer.example"[..])
        );
        counter.fetch_add(1, Ordering::SeqCst);
        let set = keys.lock().expect("nobody panics").clone();
        async move {
            match set {
                Some(keys) => Response::new(full(json!({ "keys": keys }).to_string())),
                None => Response::builder().status(500).body(full("")).expect("an answer"),
            }
        }
    });
    (upstream.await, asked)
}

/// A gateway with one worker whose keys come from an issuer.
fn fetching(mirror: &Upstream, issuer: &Upstream, grants: &str) -> Gateway {
    let config = json!({ "providers": [{
        "issuer": ISSUER,
        "jwks": { "cluster": "issuer", "path": "/jwks", "host": "issuer.example" },
        "claims_to_headers": { "x-user": "sub" },
    }] });
    let text = format!(
        "runtime: {{ workers: 1 }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: jwt, {grants} config: {config} }} ], \
           routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }}, {{ name: issuer, endpoints: [\"{}\"] }} ]",
        mirror.address, issuer.address
    );
    Setup::new().plugin("jwt").config(text).start()
}

const GRANTS: &str = "grants: { clusters: [issuer] },";

#[tokio::test]
async fn keys_are_fetched_once_for_all_who_wait_and_kept() {
    let (mirror, signer) = (mirror().await, Signer::ed());
    let keys = Arc::new(Mutex::new(Some(vec![signer.jwk(Some("1"))])));
    let (issuer, asked) = issuer(&keys).await;
    let gateway = fetching(&mirror, &issuer, GRANTS);
    let header = bearer(&signer.token(&json!({ "alg": "EdDSA", "kid": "1" }), &claims()));
    let mut tasks = tokio::task::JoinSet::new();
    let gateway = Arc::new(gateway);
    for _ in 0..20 {
        let (gateway, header) = (Arc::clone(&gateway), header.clone());
        tasks.spawn(async move { ask(&gateway, "GET", "/", &header).await });
    }
    for answer in tasks.join_all().await {
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("x-user: anna"), "{answer}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // Names that nobody knows do not make the issuer asked again and again.
    for kid in 0..20 {
        let token = signer.token(&json!({ "alg": "EdDSA", "kid": format!("made-up-{kid}") }), &claims());
        assert!(ask(&gateway, "GET", "/", &bearer(&token)).await.starts_with("HTTP/1.1 401"));
    }
    assert!(asked.load(Ordering::SeqCst) <= 2, "{}", asked.load(Ordering::SeqCst));
}

#[tokio::test]
async fn without_keys_nobody_comes_in_and_it_is_not_the_callers_fault() {
    let (mirror, signer) = (mirror().await, Signer::ed());
    let keys = Arc::new(Mutex::new(None));
    let (issuer, asked) = issuer(&keys).await;
    let gateway = fetching(&mirror, &issuer, GRANTS);
    let header = bearer(&signer.token(&json!({ "alg": "EdDSA" }), &claims()));
    for _ in 0..3 {
        let answer = ask(&gateway, "GET", "/", &header).await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("keys unavailable\n"), "{answer}");
    }
    gateway.wait_for_log("the keys of issuer/jwks are not to be had: the answer is 500");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "it is not asked again at once");
    // When the issuer is well again, so is the filter.
    keys.lock().expect("nobody panics").replace(vec![signer.jwk(None)]);
    let again = weir_tests::wait::until("the keys", async || {
        ask(&gateway, "GET", "/", &header).await.starts_with("HTTP/1.1 200").then_some(())
    });
    again.await;
}

#[tokio::test]
async fn without_a_grant_for_the_cluster_the_issuer_is_not_asked() {
    let (mirror, signer) = (mirror().await, Signer::ed());
    let keys = Arc::new(Mutex::new(Some(vec![signer.jwk(None)])));
    let (issuer, asked) = issuer(&keys).await;
    let gateway = fetching(&mirror, &issuer, "");
    let header = bearer(&signer.token(&json!({ "alg": "EdDSA" }), &claims()));
    assert!(ask(&gateway, "GET", "/", &header).await.starts_with("HTTP/1.1 503"));
    gateway.wait_for_log("calling cluster `issuer`: the host answered BadArgument");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_token_that_names_no_key_is_tried_with_several() {
    let mirror = mirror().await;
    let signers = [Signer::p256(), Signer::p256(), Signer::p256(), Signer::p256()];
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk(None)).collect();
    let gateway = preemptible(&with_keys(&keys), &mirror);
    for signer in &signers {
        let answer =
            ask(&gateway, "GET", "/", &bearer(&signer.token(&json!({ "alg": "ES256" }), &claims()))).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let stranger = Signer::p256().token(&json!({ "alg": "ES256" }), &claims());
    assert!(ask(&gateway, "GET", "/", &bearer(&stranger)).await.starts_with("HTTP/1.1 401"));
}

#[tokio::test]
async fn a_token_that_was_good_is_known_again_and_ends_all_the_same() {
    let (mirror, signer) = (mirror().await, Signer::p256());
    let gateway = plain("jwt", &with_keys(&[signer.jwk(None)]), &mirror);
    // More than could be verified in the time that a filter has for long calls (10 ms in a second).
    let header = bearer(&signer.token(&json!({ "alg": "ES256" }), &claims()));
    for _ in 0..200 {
        assert!(ask(&gateway, "GET", "/", &header).await.starts_with("HTTP/1.1 200"));
    }
    let mut ending = claims();
    // The leeway is a minute.
    ending["exp"] = (soon() - 600 - 58).into();
    let header = bearer(&signer.token(&json!({ "alg": "ES256" }), &ending));
    assert!(ask(&gateway, "GET", "/", &header).await.starts_with("HTTP/1.1 200"));
    let ended = weir_tests::wait::until("its end", async || {
        ask(&gateway, "GET", "/", &header).await.starts_with("HTTP/1.1 401").then_some(())
    });
    ended.await;
    gateway.wait_for_access("token expired");
}
