//! `rate-limit`.

use weir_tests::Setup;
use weir_tests::http::{Client, empty, mirror};

use super::{ask, plain, plain_config};

/// How many of so many requests, sent at once over connections of their own, are answered with 200 and how many with
/// 429.
async fn burst(gateway: &weir_tests::Gateway, requests: usize, header: &str) -> (usize, usize) {
    let asked = (0..requests).map(|_| ask(gateway, "GET", "/", header));
    let mut counts = (0, 0);
    let mut tasks = Vec::new();
    for one in asked {
        tasks.push(one);
    }
    for answer in join(tasks).await {
        match answer.get(9..12) {
            Some("200") => counts.0 += 1,
            Some("429") => counts.1 += 1,
            _ => panic!("{answer}"),
        }
    }
    counts
}

/// Awaits all of them together.
async fn join<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut pinned: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        let mut all = true;
        for (future, done) in &mut pinned {
            if done.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *done = Some(value),
                    std::task::Poll::Pending => all = false,
                }
            }
        }
        if all { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    pinned.into_iter().filter_map(|(_, done)| done).collect()
}

#[tokio::test]
async fn all_workers_take_from_one_bucket_and_none_gives_out_a_token_twice() {
    let mirror = mirror().await;
    let config = "{ limits: [ { name: all, requests: 20, per: 1h } ] }";
    let text = format!("runtime: {{ workers: 4 }}\n{}", plain_config("rate-limit", config, &mirror));
    let gateway = Setup::new().plugin("rate-limit").config(text).start();
    assert_eq!(burst(&gateway, 100, "").await, (20, 80));
    assert_eq!(gateway.wait_for_access("limited by all")["filter"], "rate-limit");
    let metrics = gateway.admin("GET", "/metrics").await.text();
    let counted = |name: &str, count: &str| {
        let line =
            metrics.lines().find(|line| line.contains(name) && line.starts_with("weir_plugin_custom_"));
        assert!(line.is_some_and(|line| line.ends_with(&format!(" {count}"))), "{name} {count} in {metrics}");
    };
    counted("rate_limit_allowed", "20");
    counted("rate_limit_limited", "80");
}

#[tokio::test]
async fn each_value_has_a_bucket_and_those_without_one_share_it() {
    let mirror = mirror().await;
    let config = "{ limits: [ { by: [request.headers.x-tenant], requests: 2, per: 1h } ] }";
    let gateway = plain("rate-limit", config, &mirror);
    for header in
        ["x-tenant: a\r\n", "x-tenant: b\r\n", "X-Tenant: c\r\nx-tenant: a\r\n", "", "x-tenant: \r\n"]
    {
        let expected = if header == "x-tenant: \r\n" { (0, 3) } else { (2, 1) };
        assert_eq!(burst(&gateway, 3, header).await, expected, "{header:?}");
    }
}

#[tokio::test]
async fn a_client_is_known_by_its_address_whatever_port_it_calls_from() {
    let mirror = mirror().await;
    let config = "{ limits: [ { by: [source.address], requests: 3, per: 1h } ], headers: true }";
    let gateway = plain("rate-limit", config, &mirror);
    let first = ask(&gateway, "GET", "/", "x-forwarded-for: 192.0.2.1\r\n").await;
    assert!(
        first.contains("x-ratelimit-limit: 3\r\n") && first.contains("x-ratelimit-remaining: 2\r\n"),
        "{first}"
    );
    assert!(first.contains("x-ratelimit-reset: 1200\r\n"), "{first}");
    assert_eq!(burst(&gateway, 5, "x-forwarded-for: 192.0.2.2\r\n").await, (2, 3), "it is no header");
    let refused = ask(&gateway, "GET", "/", "").await;
    assert!(refused.starts_with("HTTP/1.1 429") && refused.ends_with("too many requests\n"), "{refused}");
    let after =
        refused.lines().find_map(|line| line.strip_prefix("retry-after: ")).expect("when to come again");
    assert!((1100..=1200).contains(&after.trim().parse::<u32>().expect("seconds")), "{after}");
    assert!(refused.contains("x-ratelimit-remaining: 0\r\n"), "{refused}");
}

#[tokio::test]
async fn a_limit_is_for_its_methods_and_paths_and_one_that_is_used_up_ends_it() {
    let mirror = mirror().await;
    let config = "{ limits: [ { name: login, requests: 1, per: 1h, methods: [POST], path_prefix: /login }, { name: all, requests: 3, per: 1h } ] }";
    let gateway = plain("rate-limit", config, &mirror);
    let mut statuses = Vec::new();
    for (method, path) in
        [("POST", "/login"), ("POST", "/login?x"), ("GET", "/login"), ("POST", "/other"), ("GET", "/")]
    {
        let answer = ask(&gateway, method, path, "content-length: 0\r\n").await;
        statuses.push(answer.get(9..12).unwrap_or_default().to_owned());
    }
    assert_eq!(statuses, ["200", "429", "200", "200", "429"]);
}

#[tokio::test]
async fn tokens_come_back_with_time() {
    let mirror = mirror().await;
    let gateway = plain("rate-limit", "{ limits: [ { requests: 1, per: 200ms } ] }", &mirror);
    assert!(ask(&gateway, "GET", "/", "").await.starts_with("HTTP/1.1 200"));
    let again = weir_tests::wait::until("a token", async || {
        ask(&gateway, "GET", "/", "").await.starts_with("HTTP/1.1 200").then_some(())
    });
    again.await;
}

#[tokio::test]
async fn buckets_outlive_a_new_version_of_the_plugin() {
    let mirror = mirror().await;
    let gateway = plain("rate-limit", "{ limits: [ { name: all, requests: 2, per: 1h } ] }", &mirror);
    assert_eq!(burst(&gateway, 2, "").await, (2, 0));
    // Another version, by its content: a section of its own at the end.
    let mut bytes = weir_tests::guests::wasm("rate-limit");
    bytes.extend_from_slice(&[0, 3, 1, b'x', 0]);
    gateway.swap_plugin("rate-limit", &bytes);
    gateway.wait_for_log("a new version serves");
    assert_eq!(burst(&gateway, 2, "").await, (0, 2));
}

#[tokio::test]
async fn callers_of_grpc_learn_that_a_resource_is_exhausted() {
    let mirror = mirror().await;
    let gateway = plain("rate-limit", "{ limits: [ { requests: 1, per: 1h } ] }", &mirror);
    let mut client = Client::h2(gateway.address("web")).await;
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let request = client.request("POST", "/service/Method").header("content-type", "application/grpc");
        let answer = client.call(request.body(empty()).expect("a request")).await.expect("an answer");
        statuses.push(answer.header("grpc-status"));
    }
    assert_eq!(statuses, ["", "8"]);
}
