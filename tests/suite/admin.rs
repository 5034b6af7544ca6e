//! The admin API.

use weir_tests::http::{Client, full, get, mirror};
use weir_tests::tls::{authority, certificate};
use weir_tests::wait::until;
use weir_tests::{Gateway, Setup};

/// A gateway with a filter, a route, a cluster and a certificate.
async fn gateway() -> (Gateway, weir_tests::upstream::Upstream) {
    let (mirror, cert) = (mirror().await, certificate(&["a.example"]));
    let config = format!(
        "listeners:\n\
         - {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: http-version }} ], routes: [ {{ name: main, cluster: up }} ] }} }}\n\
         - {{ name: safe, address: \"127.0.0.1:0\", tls: {{ mode: terminate, certificates: [ {{ cert: a.pem, key: a.key }} ] }}, tcp: {{ cluster: up }} }}\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]\n\
         drain_timeout: 7s",
        mirror.address
    );
    let setup =
        Setup::new().file("a.pem", cert.cert).file("a.key", cert.key).file("ca.pem", authority().pem());
    (setup.plugin("http-version").config(config).start(), mirror)
}

#[tokio::test]
async fn ready_says_so_once_every_listener_serves() {
    let (gateway, _mirror) = gateway().await;
    let answer = gateway.admin("GET", "/ready").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ready\n"));
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[tokio::test]
async fn metrics_are_prometheus_text_and_count_what_happened() {
    let (gateway, _mirror) = gateway().await;
    for _ in 0..3 {
        get(gateway.address("web"), "/").await;
    }
    let text = until("three requests in the metrics", async || {
        let text = gateway.admin("GET", "/metrics").await.text();
        text.contains("weir_http_requests_total{listener=\"web\",route=\"main\",code=\"2xx\"} 3")
            .then_some(text)
    })
    .await;
    for line in text.lines() {
        let shape =
            line.starts_with("# HELP weir_") || line.starts_with("# TYPE weir_") || line.starts_with("weir_");
        assert!(shape, "{line}");
        if let Some((_, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) {
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    for name in [
        "weir_listener_connections_total{listener=\"web\"}",
        "weir_plugin_calls_total{plugin=\"http-version\",version=\"sha256:",
        "weir_upstream_connects_total{cluster=\"up\"}",
        "weir_config_reloads_total{result=\"taken\"}",
    ] {
        assert!(text.contains(name), "no {name} in:\n{text}");
    }
    assert!(
        gateway
            .admin("GET", "/metrics")
            .await
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
}

#[tokio::test]
async fn plugins_show_versions_filters_and_what_they_used() {
    let (gateway, _mirror) = gateway().await;
    get(gateway.address("web"), "/").await;
    gateway.swap_plugin("http-version", b"nonsense");
    gateway.wait_for_log("a version is refused");
    let shown = gateway.admin("GET", "/plugins").await.json();
    let plugin = &shown["plugins"][0];
    assert_eq!(plugin["name"], "http-version");
    let versions = plugin["versions"].as_array().expect("a list");
    let state = |wanted: &str| versions.iter().find(|version| version["state"] == wanted).cloned();
    let rejected = state("rejected").expect("the nonsense is there");
    assert!(
        rejected["reason"].as_str().is_some_and(|reason| reason.contains("not a WebAssembly module")),
        "{shown:#}"
    );
    assert!(
        state("serving").is_some_and(|v| v["digest"].as_str().is_some_and(|d| d.starts_with("sha256:"))),
        "{shown:#}"
    );
    assert_eq!(plugin["filters"][0], serde_json::json!({ "listener": "web", "filter": "http-version" }));
    assert_eq!(plugin["instances"], 2, "one for each worker");
    assert!(plugin["calls"].as_u64().is_some_and(|calls| calls > 0), "{shown:#}");
    assert!(plugin["cpu_seconds"].as_f64().is_some_and(|cpu| cpu > 0.0), "{shown:#}");
    assert!(plugin["memory_bytes"].as_u64().is_some_and(|memory| memory >= 65536), "{shown:#}");
    assert!(
        plugin["faults"].as_object().is_some_and(|faults| faults.values().all(|count| count == 0)),
        "{shown:#}"
    );
}

#[tokio::test]
async fn listeners_clusters_and_certificates_are_shown() {
    let (gateway, mirror) = gateway().await;
    get(gateway.address("web"), "/").await;
    let listeners = gateway.admin("GET", "/listeners").await.json();
    let web = &listeners["listeners"][0];
    assert_eq!(web["name"], "web");
    assert_eq!(web["address"], gateway.address("web").to_string(), "where it really listens");
    assert_eq!(web["http"]["routes"][0], "main");
    assert_eq!(web["http"]["filters"][0], "http-version");
    assert_eq!(listeners["listeners"][1]["tls"], "terminate");
    let clusters = gateway.admin("GET", "/clusters").await.json();
    assert_eq!(clusters["clusters"][0]["endpoints"][0]["address"], mirror.address.to_string());
    assert_eq!(clusters["clusters"][0]["connects"], 1);
    let certificates = gateway.admin("GET", "/certificates").await.json();
    let certificate = &certificates["certificates"][0];
    assert_eq!(certificate["dns_names"][0], "a.example");
    assert_eq!(certificate["used_by"]["listener"], "safe");
    assert_eq!(certificate["not_after"], "2045-01-01T00:00:00Z");
}

#[tokio::test]
async fn the_configuration_in_force_is_shown_with_its_defaults_and_why_a_newer_one_is_not() {
    let (gateway, _mirror) = gateway().await;
    let shown = gateway.admin("GET", "/config").await.json();
    assert_eq!(shown["config"]["drain_timeout"], "7s");
    assert_eq!(shown["config"]["clusters"][0]["balance"], "round_robin", "defaults are filled in");
    assert!(shown.get("rejected").is_none() && shown.get("needs_restart").is_none());
    let config = std::fs::read_to_string(gateway.folder().join("weir.yaml")).expect("it is there");
    gateway.write_config(&config.replace("workers: 2", "workers: 3"));
    assert_eq!(gateway.admin("POST", "/reload").await.status, 200);
    let waiting = gateway.admin("GET", "/config").await.json();
    assert_eq!(waiting["needs_restart"], serde_json::json!(["runtime"]));
    gateway.write_config(&config);
    assert_eq!(gateway.admin("POST", "/reload").await.status, 200);
    assert!(gateway.admin("GET", "/config").await.json().get("needs_restart").is_none());
    gateway.write_config("listeners: 7");
    let answer = gateway.admin("POST", "/reload").await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("weir.yaml:"), "{}", answer.text());
    let shown = gateway.admin("GET", "/config").await.json();
    assert!(shown["rejected"].as_str().is_some_and(|why| why.contains("a list is expected")), "{shown:#}");
    assert_eq!(shown["config"]["drain_timeout"], "7s", "the old one is in force");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said() {
    let (gateway, _mirror) = gateway().await;
    let answer = gateway.admin("GET", "/nothing").await;
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("GET /plugins"), "what there is is named: {}", answer.text());
    assert_eq!(gateway.admin("GET", "/drain").await.status, 405);
    assert_eq!(gateway.admin("POST", "/plugins").await.status, 405);
    let mut client = Client::h1(gateway.admin_address()).await;
    for _ in 0..2 {
        // A body that nobody reads does not get into the way of the next request.
        let request = client.request("POST", "/reload").body(full("x".repeat(10))).expect("a request");
        assert_eq!(client.call(request).await.expect("an answer").status, 200);
    }
}
