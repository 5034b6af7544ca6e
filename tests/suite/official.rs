//! Filters built with the official `proxy-wasm` crate run as they are.

use http::Request;
use hyper::body::Incoming;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use weir_tests::Setup;
use weir_tests::guests::patched;
use weir_tests::http::{Client, empty, full, get, mirror, upstream};
use weir_tests::upstream::Upstream;
use weir_tests::wait::soon;

use crate::plugins::filtered;

#[tokio::test]
async fn the_headers_example_logs_headers_and_answers_by_itself() {
    let mirror = mirror().await;
    let gateway = filtered(&["official-headers"], "{ plugin: official-headers }", &mirror);
    let hello = get(gateway.address("web"), "/hello").await;
    assert_eq!(
        (hello.text().as_str(), hello.header("powered-by").as_str()),
        ("Hello, World!\n", "proxy-wasm")
    );
    assert!(get(gateway.address("web"), "/other").await.text().starts_with("GET /other "));
    gateway.wait_for_log("-> :path: /hello");
    gateway.wait_for_log("<- :status: 200");
    gateway.wait_for_log("completed.");
}

#[tokio::test]
async fn a_module_that_says_0_2_0_runs_too() {
    let mirror = mirror().await;
    let older = patched("official-headers", "proxy_abi_version_0_2_1", "proxy_abi_version_0_2_0");
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: older }} ], routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        mirror.address
    );
    let gateway = Setup::new().plugin_bytes("older", &older).config(config).start();
    assert_eq!(get(gateway.address("web"), "/hello").await.text(), "Hello, World!\n");
}

#[tokio::test]
async fn the_body_example_redacts_a_secret_however_it_comes() {
    let upstream = upstream(|request: Request<Incoming>| async move {
        let text = if request.uri().path() == "/secret" { "a secret that leaks" } else { "nothing to hide" };
        http::Response::new(full(text))
    })
    .await;
    let gateway = filtered(&["official-body"], "{ plugin: official-body }", &upstream);
    let redacted = get(gateway.address("web"), "/secret").await;
    assert_eq!(redacted.text(), "Original message body (19 bytes) redacted.\n");
    assert_eq!(get(gateway.address("web"), "/").await.text(), "nothing to hide");
}

#[tokio::test]
async fn the_auth_example_asks_a_cluster_before_it_decides() {
    let mirror = mirror().await;
    // Answers with an even byte for those who are let in.
    let authority = upstream(|request: Request<Incoming>| async move {
        assert_eq!(request.headers()["host"], "auth.internal");
        let body = match request.uri().path() {
            "/good" => full("@yes"),
            "/slow" => {
                std::future::pending::<()>().await;
                empty()
            }
            _ => full("Ano"),
        };
        http::Response::new(body)
    })
    .await;
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: official-auth }} ], \
           routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }}, {{ name: authority, endpoints: [\"{}\"] }} ]",
        mirror.address, authority.address
    );
    let gateway = Setup::new().plugin("official-auth").config(config).start();
    let mut client = Client::h1(gateway.address("web")).await;
    for _ in 0..20 {
        let good = client.get("/good").await;
        assert_eq!(good.header("powered-by"), "proxy-wasm");
        assert!(good.text().contains("x-granted-by: 200 of "), "{}", good.text());
        let bad = client.get("/bad").await;
        assert_eq!((bad.status.as_u16(), bad.text().as_str()), (403, "Access forbidden.\n"));
    }
    let slow = client.get("/slow").await;
    assert_eq!(slow.status, 403, "a call that ends without an answer is told as one");
}

#[tokio::test]
async fn a_call_to_a_cluster_that_there_is_not_is_refused_with_a_status() {
    let mirror = mirror().await;
    let gateway = filtered(&["official-auth"], "{ plugin: official-auth }", &mirror);
    let answer = get(gateway.address("web"), "/").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (500, "the call was refused: BadArgument"));
}

#[tokio::test]
async fn the_config_example_gets_its_configuration_as_it_stands() {
    let mirror = mirror().await;
    for (config, expected) in [("\"just text\"", "just text"), ("{ a: 1, b: [x] }", r#"{"a":1,"b":["x"]}"#)] {
        let filter = format!("{{ plugin: official-config, config: {config} }}");
        let gateway = filtered(&["official-config"], &filter, &mirror);
        assert_eq!(get(gateway.address("web"), "/").await.header("custom-header"), expected);
    }
}

#[tokio::test]
async fn the_tcp_routing_example_chooses_the_cluster_of_a_connection() {
    let greeter = Upstream::new(|mut socket| async move {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, b"routed").await;
    })
    .await;
    let config = format!(
        "listeners: [ {{ name: l, address: \"127.0.0.1:0\", filters: [ {{ plugin: official-tcp-routing, config: \"greeter\" }} ] }} ]\n\
         clusters: [ {{ name: greeter, endpoints: [\"{}\"] }} ]",
        greeter.address
    );
    let gateway = Setup::new().plugin("official-tcp-routing").config(config).start();
    let mut socket = TcpStream::connect(gateway.address("l")).await.expect("it listens");
    let mut text = String::new();
    soon("the greeting", socket.read_to_string(&mut text)).await.expect("text");
    assert_eq!(text, "routed");
}
