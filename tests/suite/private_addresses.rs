//! What a DNS name leads a plugin's call to: nothing private, unless the cluster says so.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use serde_json::json;
use weir_tests::http::{full, get, upstream};
use weir_tests::wait::until;
use weir_tests::{Gateway, Setup, puppet};

use crate::dns::name_server;

/// A gateway with a filter that makes calls to `named` (HTTP and gRPC), `allowed` and `written`, in this order, in each
/// request. All are the same port: `named` and `allowed` by a name that stands for `answers`.
async fn gateway(answers: &Arc<Mutex<Vec<Ipv4Addr>>>, port: u16) -> Gateway {
    let server = name_server(Arc::clone(answers)).await;
    let call = |cluster: &str| {
        format!("proxy_http_call {cluster} [:method=GET|:path=/{cluster}|:authority=o] \"\" [] 2000")
    };
    let calls = [
        call("named"),
        "proxy_grpc_call named s m [] \"x\" 2000".to_owned(),
        call("allowed"),
        call("written"),
    ];
    let mut filter = puppet::filter(&format!("request_headers: {}", calls.join("; ")));
    filter["grants"] = json!({ "clusters": ["named", "allowed", "written"] });
    let config = format!(
        "runtime: {{ workers: 1, dns_servers: [\"{server}\"] }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {filter} ], routes: [ {{ cluster: named }} ] }} }} ]\n\
         clusters:\n\
         - {{ name: named, endpoints: [\"inside.test.example:{port}\"], connect_timeout: 1s }}\n\
         - {{ name: allowed, endpoints: [\"inside.test.example:{port}\"], allow_private: true }}\n\
         - {{ name: written, endpoints: [\"127.0.0.1:{port}\"] }}\n"
    );
    Setup::new().plugin("puppet").config(config).start()
}

async fn counted(gateway: &Gateway) -> u64 {
    let metrics = gateway.admin("GET", "/metrics").await.text();
    let series = "weir_upstream_private_refused_total{cluster=\"named\"} ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    line.expect("the series").parse().expect("a number")
}

#[tokio::test]
async fn a_name_leads_no_call_to_this_host_unless_the_cluster_allows_it_and_routed_traffic_goes_on() {
    let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let up = upstream(move |request| {
        told.send(request.uri().path().to_owned()).expect("the test listens");
        async { http::Response::new(full("ok")) }
    })
    .await;
    let answers = Arc::new(Mutex::new(vec![Ipv4Addr::LOCALHOST]));
    let gateway = gateway(&answers, up.address.port()).await;
    // The connection of a routed request could be used by a call; it is not.
    assert_eq!(get(gateway.address("web"), "/routed").await.status, 200);
    // A call without an answer, and two with one.
    gateway.wait_for_log("root http_call_response [0, 0, 0]");
    gateway.wait_for_log("root grpc_close [14]");
    gateway.wait_for_log_count("root http_call_response [1, 2, 0]", 2);
    assert_eq!(get(gateway.address("web"), "/routed").await.status, 200);
    gateway.wait_for_log_count("root http_call_response [0, 0, 0]", 2);
    gateway.wait_for_log_count("root grpc_close [14]", 2);
    gateway.wait_for_log_count("root http_call_response [1, 2, 0]", 4);
    let mut paths: Vec<String> = std::iter::from_fn(|| seen.try_recv().ok()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/allowed", "/allowed", "/routed", "/routed", "/written", "/written"]);
    assert_eq!(counted(&gateway).await, 4);
    let line = gateway.wait_for_log("stands for 127.0.0.1:");
    assert!(line.contains("a name of cluster `named`") && line.contains("which is loopback"), "{line}");
}

#[tokio::test]
async fn a_name_that_stands_for_this_host_only_later_leads_no_call_there_either() {
    let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let up = upstream(move |request| {
        told.send(request.uri().path().to_owned()).expect("the test listens");
        async { http::Response::new(full("ok")) }
    })
    .await;
    // Nobody answers there (RFC 5737), but it is no private address.
    let answers = Arc::new(Mutex::new(vec![Ipv4Addr::new(203, 0, 113, 7)]));
    let gateway = gateway(&answers, up.address.port()).await;
    assert_eq!(get(gateway.address("web"), "/routed").await.status, 503);
    assert_eq!(counted(&gateway).await, 0);
    for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::new(10, 9, 8, 7)] {
        *answers.lock().expect("nobody panics here") = vec![address];
        until("a call to be refused", async || {
            get(gateway.address("web"), "/routed").await;
            gateway.logged(&format!("a name of cluster `named` stands for {address}:")).then_some(())
        })
        .await;
    }
    let paths: Vec<String> = std::iter::from_fn(|| seen.try_recv().ok()).collect();
    assert!(paths.iter().any(|path| path == "/allowed"), "{paths:?}");
    assert!(paths.iter().all(|path| path != "/named" && path != "/s/m"), "{paths:?}");
}
