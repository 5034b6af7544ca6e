//! The standard filters, as they are.

use serde_json::{Value, json};

use crate::parity::upstreams::Answer;
use crate::parity::{Filter, Scenario, Send, get};

/// A standard filter with its configuration.
fn filter(name: &'static str, filter: &'static str, config: &Value) -> Scenario {
    let mut scenario = Scenario::new(name, "");
    scenario.filters = vec![Filter { guest: filter, ..Filter::new("one", &config.to_string()) }];
    scenario
}

fn tcp(name: &'static str, rules: &Value) -> Scenario {
    let mut scenario = filter(name, "tcp-access", &json!({ "rules": rules }));
    scenario.tcp = true;
    scenario.answer = Answer::body(&["answer"]);
    scenario.send(Send { body: vec!["one".to_owned()], ..Send::default() })
}

fn options(path: &'static str) -> Send {
    Send { method: "OPTIONS", ..get(path) }
}

pub fn scenarios() -> Vec<Scenario> {
    [keys_and_tokens(), callers(), services(), messages()].concat()
}

fn keys_and_tokens() -> Vec<Scenario> {
    let key = "0123456789abcdef-app";
    let keys = json!({
        "keys": [{ "name": "app", "key": key }],
        "from": [{ "header": "x-api-key" }, { "query": "api_key" }],
        "name_header": "x-consumer",
    });
    // Signed once, with a key that is gone. It is good until 2100.
    let good = "Bearer eyJhbGciOiJFUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYW5uYSIsImV4cCI6NDEwMjQ0NDgwMH0.ppEN1VsSypQKrTaBD1HH9EqyW0j9kI_AB84cFGiTAELJq3yn4gjlQmdPt7rzO5RBQx6Qih4JHXg1Cx67QCdmLg";
    let cut = good.get(..good.len() - 4).unwrap_or_default();
    let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": "1", "x": "uMMy7Wch67UacTs5NOF-esDVg7hKKz2guICDjaHBjVU", "y": "H9oSAJpm9vAIfeKigqrLZUmbXcVA_rtjPgF2nCB4ziw" });
    let tokens = json!({ "providers": [{
        "issuer": "https://issuer.example",
        "jwks": { "cluster": "other", "path": "/jwks", "host": "issuer.example" },
        "claims_to_headers": { "x-user": "sub" },
    }] });
    let set = json!({ "keys": [jwk] }).to_string();
    vec![
        filter("filter-api-key", "api-key", &keys)
            .send(get("/a").header("x-api-key", key).header("x-consumer", "forged"))
            .send(get("/a?x=1&api%5Fkey=0123456789abcdef-app"))
            .send(get("/a"))
            .send(get("/a").header("x-api-key", key).header("x-api-key", key))
            .send(get("/a?api_key=another").header("x-api-key", key)),
        filter("filter-jwt", "jwt", &tokens)
            .other(Answer::body(&[set.as_str()]))
            .send(get("/a").header("authorization", good).header("x-user", "root"))
            .send(get("/a").header("authorization", good))
            .send(get("/a").header("authorization", cut))
            .send(get("/a")),
        filter("filter-jwt-without-keys", "jwt", &tokens)
            .other(Answer::default().status(500))
            .send(get("/a").header("authorization", good)),
    ]
}

fn callers() -> Vec<Scenario> {
    let near = json!({ "rules": [{ "name": "near", "allow": ["::ffff:127.0.0.0/104"] }] });
    let far = json!({ "rules": [{ "name": "far", "allow": ["192.0.2.0/24"] }] });
    let limits =
        json!({ "limits": [{ "by": ["source.address"], "requests": 2, "per": "1h" }], "headers": true });
    let authz = json!({
        "decision_header": "x-rule",
        "rules": [
            { "name": "secret", "deny": ["*"], "path_prefix": "/secret" },
            { "name": "client", "allow": ["spiffe://mesh.internal/client"], "methods": ["GET"] },
        ],
    });
    vec![
        filter("filter-ip-access", "ip-access", &near).send(get("/a")),
        filter("filter-ip-access-denied", "ip-access", &far).send(get("/a").header("x-real-ip", "192.0.2.1")),
        filter("filter-ip-access-forwarded", "ip-access", &far)
            .send(get("/a").header("x-forwarded-for", "192.0.2.1")),
        filter("filter-rate-limit", "rate-limit", &limits).send(get("/a")).send(get("/b")).send(get("/c")),
        filter("filter-authz", "authz", &authz)
            .tls()
            .send(get("/a"))
            .send(get("/secret"))
            .send(Send { method: "DELETE", ..get("/a") }),
        tcp("filter-tcp-access", &json!([{ "allow": ["*"], "addresses": ["127.0.0.0/8"] }])),
        tcp(
            "filter-tcp-access-denied",
            &json!([{ "name": "far", "allow": ["*"], "addresses": ["192.0.2.0/24"] }]),
        )
        .until("is refused by default"),
        tcp("filter-tcp-access-by-certificate", &json!([{ "allow": ["certificate", "authenticated"] }])),
    ]
}

fn services() -> Vec<Scenario> {
    let config = json!({
        "service": { "http": {
            "cluster": "other",
            "path_prefix": "/check",
            "upstream_headers": ["x-user"],
            "client_headers_on_success": ["x-checked"],
        } },
        "timeout": "5s",
    });
    let ask = || get("/a?b=c").header("authorization", "Bearer t").header("x-user", "root");
    let mut silent = Answer::default();
    silent.silent = true;
    let mut hasty = config.clone();
    hasty["timeout"] = "100ms".into();
    vec![
        filter("filter-ext-authz", "ext-authz", &config)
            .other(Answer::default().header("x-user", "anna").header("x-checked", "yes"))
            .send(ask()),
        filter("filter-ext-authz-denied", "ext-authz", &config)
            .other(Answer::body(&["who are you"]).status(401).header("www-authenticate", "Basic"))
            .send(ask()),
        filter("filter-ext-authz-in-trouble", "ext-authz", &config)
            .other(Answer::default().status(503))
            .send(ask()),
        filter("filter-ext-authz-silent", "ext-authz", &hasty).other(silent).send(ask()),
    ]
}

fn messages() -> Vec<Scenario> {
    let cors = json!({
        "allow_origins": ["https://app.example"],
        "allow_methods": ["PUT"],
        "allow_headers": ["x-a"],
        "allow_credentials": true,
        "max_age": "1m",
    });
    let rewrite = json!({
        "request": { "remove": ["x-debug"], "rename": { "x-old": "x-new" }, "set": { "x-team": "payments" }, "add": { "x-tag": "edge" } },
        "response": { "remove": ["x-powered-by"], "set": { "x-served": "%{request.method} 100%%" } },
    });
    let preflight =
        |origin| options("/a").header("origin", origin).header("access-control-request-method", "PUT");
    vec![
        filter("filter-cors", "cors", &cors)
            .answer(Answer::default().header("access-control-allow-origin", "*").header("vary", "accept"))
            .send(preflight("https://app.example"))
            .send(preflight("https://evil.example"))
            .send(get("/a").header("origin", "https://app.example"))
            .send(get("/a").header("origin", "null"))
            .send(get("/a")),
        filter("filter-header-rewrite", "header-rewrite", &rewrite)
            .answer(Answer::default().header("x-powered-by", "magic"))
            .send(
                get("/a")
                    .header("x-debug", "1")
                    .header("x-old", "2")
                    .header("x-tag", "first")
                    .header("x-team", "own"),
            ),
    ]
}
