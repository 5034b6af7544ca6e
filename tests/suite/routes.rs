//! Routes: which request goes where, and what becomes of it on the way.

use http::{Request, Response};
use tokio::io::AsyncReadExt;
use weir_tests::gateway::own_address;
use weir_tests::http::{Client, asking, empty, full, get, mirror, upstream};
use weir_tests::upstream::Upstream;
use weir_tests::wait::soon;
use weir_tests::{Gateway, Setup};

async fn named(name: &'static str) -> Upstream {
    upstream(move |_: Request<hyper::body::Incoming>| async move { http::Response::new(full(name)) }).await
}

fn gateway(routes: &str, clusters: &[(&str, &Upstream)]) -> Gateway {
    let clusters: Vec<_> = clusters
        .iter()
        .map(|(name, upstream)| format!("{{ name: {name}, endpoints: [\"{}\"] }}", upstream.address))
        .collect();
    let config = format!(
        "listeners:\n  - name: web\n    address: 127.0.0.1:0\n    http:\n      routes:\n{routes}\nclusters: [ {} ]",
        clusters.join(", ")
    );
    Setup::new().config(config).start()
}

async fn ask(
    gateway: &Gateway,
    method: &str,
    host: &str,
    path: &str,
    header: Option<(&str, &str)>,
) -> String {
    let mut client = Client::h1(gateway.address("web")).await;
    let mut request = Request::builder().method(method).uri(path).header("host", host);
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let answer = client.call(request.body(empty()).expect("a request")).await.expect("an answer");
    if answer.status == 200 { answer.text() } else { answer.status.as_u16().to_string() }
}

#[tokio::test]
async fn host_path_method_and_headers_choose_the_route_in_the_order_of_the_file() {
    let (a, b, c) = (named("a").await, named("b").await, named("c").await);
    let gateway = gateway(
        r#"
        - { match: { host: api.example.com, path: /exact }, cluster: a }
        - { match: { host: api.example.com, path_prefix: /v1, methods: [GET] }, cluster: b }
        - { match: { host: "*.example.com", path_regex: "/item/[0-9]+" }, cluster: c }
        - { match: { headers: { x-canary: "1" } }, cluster: c }
        - { match: { path_prefix: /teapot }, respond: { status: 418, body: "short and stout\n" } }"#,
        &[("a", &a), ("b", &b), ("c", &c)],
    );
    for (method, host, path, header, expected) in [
        ("GET", "api.example.com", "/exact?q", None, "a"),
        ("GET", "API.example.com:8080", "/v1/x", None, "b"),
        ("POST", "api.example.com", "/v1/x", None, "404"),
        ("POST", "api.example.com", "/item/42", None, "c"),
        ("GET", "other.example.com", "/item/x", None, "404"),
        ("GET", "example.com", "/item/42", None, "404"),
        ("GET", "elsewhere", "/", Some(("x-canary", "1")), "c"),
        ("GET", "elsewhere", "/teapot", None, "418"),
    ] {
        assert_eq!(ask(&gateway, method, host, path, header).await, expected, "{method} {host}{path}");
    }
}

#[tokio::test]
async fn what_no_route_matches_is_404_in_plain_text() {
    let gateway = gateway("        - { match: { path: /x }, respond: { status: 200 } }", &[]);
    let answer = get(gateway.address("web"), "/nowhere").await;
    assert_eq!((answer.status.as_u16(), answer.header("server").as_str()), (404, "weir"));
    assert_eq!(answer.header("content-type"), "text/plain");
    assert_eq!(gateway.wait_for_access("/nowhere")["reason"], "no_route");
}

#[tokio::test]
async fn a_route_answers_or_redirects_by_itself() {
    let gateway = gateway(
        r#"
        - { match: { path: /fixed }, respond: { status: 201, body: "made", headers: { x-by: weir } } }
        - { match: { path_prefix: /old }, redirect: { scheme: https, host: new.example, path: /new, status: 308 } }
        - { redirect: { scheme: https } }"#,
        &[],
    );
    let fixed = get(gateway.address("web"), "/fixed").await;
    assert_eq!(
        (fixed.status.as_u16(), fixed.text().as_str(), fixed.header("x-by").as_str()),
        (201, "made", "weir")
    );
    let old = get(gateway.address("web"), "/old/page").await;
    assert_eq!((old.status.as_u16(), old.header("location").as_str()), (308, "https://new.example/new"));
    let rest = get(gateway.address("web"), "/a?b=c").await;
    assert_eq!((rest.status.as_u16(), rest.header("location").as_str()), (301, "https://example.com/a?b=c"));
}

#[tokio::test]
async fn a_prefix_is_rewritten_on_the_way() {
    let mirror = mirror().await;
    let gateway = gateway(
        r#"
        - { match: { path_prefix: /api/ }, cluster: m, prefix_rewrite: / }
        - { match: { path: /one }, cluster: m, prefix_rewrite: /two }"#,
        &[("m", &mirror)],
    );
    assert!(get(gateway.address("web"), "/api/users?x=1").await.text().starts_with("GET /users?x=1 "));
    assert!(get(gateway.address("web"), "/one?x=1").await.text().starts_with("GET /two?x=1 "));
}

#[tokio::test]
async fn weights_share_out_the_requests() {
    let (a, b) = (named("a").await, named("b").await);
    let gateway = gateway(
        "        - { clusters: [ { name: a, weight: 3 }, { name: b, weight: 1 } ] }",
        &[("a", &a), ("b", &b)],
    );
    let mut client = Client::h1(gateway.address("web")).await;
    let mut counts = [0; 2];
    for _ in 0..800 {
        counts[usize::from(client.get("/").await.text() == "b")] += 1;
    }
    // Twelve standard deviations on either side of a quarter.
    assert!((60..340).contains(&counts[1]), "{counts:?}");
}

#[tokio::test]
async fn endpoints_take_turns() {
    let (a, b) = (named("a").await, named("b").await);
    let config = format!(
        "runtime: {{ workers: 1 }}\nlisteners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: u }} ] }} }} ]\n\
         clusters: [ {{ name: u, endpoints: [\"{}\", \"{}\"] }} ]",
        a.address, b.address
    );
    let gateway = Setup::new().config(config).start();
    let mut client = Client::h1(gateway.address("web")).await;
    let mut turns = String::new();
    for _ in 0..6 {
        turns.push_str(&client.get("/").await.text());
    }
    assert!(turns == "ababab" || turns == "bababa", "{turns}");
}

#[tokio::test]
async fn the_configuration_file_is_taken_up_when_it_changes_and_a_bad_one_changes_nothing() {
    let config = |body: &str| {
        format!(
            "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ respond: {{ status: 200, body: {body} }} }} ] }} }} ]"
        )
    };
    let gateway = Setup::new().config(config("one")).start();
    let address = gateway.address("web");
    assert_eq!(get(address, "/").await.text(), "one");
    let mut held = Client::h1(address).await;
    assert_eq!(held.get("/").await.text(), "one");
    gateway.write_config(&config("two"));
    gateway.wait_for_log("the configuration is in force");
    assert_eq!(held.get("/").await.text(), "two", "a connection that was open before takes the new routes");
    gateway.write_config("listeners: [ { name: web } ]");
    gateway.wait_for_log("the configuration is refused");
    assert_eq!(get(address, "/").await.text(), "two");
    // An empty file is what a writer that was cut off leaves.
    std::fs::write(gateway.folder().join("weir.yaml"), "").expect("it can be written");
    gateway.wait_for_log("there are none left, which would end everything that serves");
    assert_eq!(get(address, "/").await.text(), "two");
    gateway.write_config(&config("three"));
    gateway.wait_for_log_count("the configuration is in force", 2);
    assert_eq!(held.get("/").await.text(), "three");
}

#[tokio::test]
async fn listeners_come_and_go_with_the_configuration() {
    let (upstream, mut asked) = asking().await;
    let listener = |name: &str| {
        format!(
            "{{ name: {name}, address: \"127.0.0.1:0\", http: {{ routes: [ {{ match: {{ path: /waits }}, cluster: up }}, {{ respond: {{ status: 200 }} }} ] }} }}"
        )
    };
    let clusters = format!("clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]", upstream.address);
    let gateway = Setup::new().config(format!("listeners: [ {} ]\n{clusters}", listener("one"))).start();
    let one = gateway.address("one");
    gateway.write_config(&format!("listeners: [ {}, {} ]\n{clusters}", listener("one"), listener("two")));
    let two = gateway.address("two");
    assert_eq!(get(two, "/").await.status, 200);
    assert_eq!(gateway.address("one"), one);
    let (mut idle, mut busy) =
        (tokio::net::TcpStream::connect(one).await.expect("it listens"), Client::h1(one).await);
    assert_eq!(busy.get("/").await.status, 200);
    let request = busy.request("GET", "/waits").body(empty()).expect("a request");
    let waiting = tokio::spawn(async move { busy.call(request).await });
    let (_, answer) = soon("the request", asked.recv()).await.expect("it comes");
    gateway.write_config(&format!("listeners: [ {} ]\n{clusters}", listener("two")));
    gateway.wait_for_log_count("the configuration is in force", 2);
    // What carries nothing is closed, and what was asked for is answered.
    let mut rest = Vec::new();
    soon("the end of what is idle", idle.read_to_end(&mut rest)).await.expect("it ends in order");
    answer.send(Response::new(full("in full"))).expect("the upstream waits");
    let answer = soon("the answer", waiting).await.expect("a task").expect("an answer");
    assert_eq!((answer.text().as_str(), answer.header("connection").as_str()), ("in full", "close"));
    weir_tests::wait::until("the first listener to be gone", async || {
        tokio::net::TcpStream::connect(one).await.err()
    })
    .await;
    assert_eq!(get(two, "/").await.status, 200);
}

#[tokio::test]
async fn a_listener_changes_its_name_and_its_sockets_stay() {
    let address = own_address(73);
    let config = |name: &str, answer: &str| {
        format!(
            "listeners: [ {{ name: {name}, address: \"{address}\", http: {{ routes: [ {{ respond: {{ status: 200, body: {answer} }} }} ] }} }} ]"
        )
    };
    let gateway = Setup::new().config(config("before", "one")).start();
    let mut held = Client::h1(address).await;
    assert_eq!(held.get("/").await.text(), "one");
    gateway.write_config(&config("after", "two"));
    gateway.wait_for_log("the configuration is in force");
    assert_eq!(get(address, "/").await.text(), "two");
    assert_eq!(held.get("/").await.text(), "two", "a connection that was open before goes on");
    assert_eq!(gateway.log().matches("listening listener=").count(), 1, "nothing is bound again");
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_the_connection_costs_the_connect_timeout_and_no_more() {
    // A queue for one, and nobody who takes from it: the kernel keeps two, and lets a third wait for ever.
    let deaf = tokio::net::TcpSocket::new_v4().expect("a socket");
    deaf.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let deaf = deaf.listen(1).expect("it listens");
    let address = deaf.local_addr().expect("an address");
    let _first = tokio::net::TcpStream::connect(address).await.expect("there is room");
    let _second = tokio::net::TcpStream::connect(address).await.expect("there is room");
    let config = format!(
        "listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: deaf }} ] }} }} ]\n\
         clusters: [ {{ name: deaf, endpoints: [\"{address}\"], connect_timeout: 200ms }} ]"
    );
    let gateway = Setup::new().config(config).start();
    let answer = get(gateway.address("web"), "/").await;
    assert_eq!(answer.status, 503);
    let line = gateway.wait_for_access("\"reason\":\"connect_timeout\"");
    let took = line["duration_ms"].as_f64().expect("a number");
    assert!((200.0..5_000.0).contains(&took), "{took} ms");
}
