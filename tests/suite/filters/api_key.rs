//! `api-key`.

use weir_tests::Setup;
use weir_tests::http::{Client, empty, mirror};

use super::{ask, plain, plain_config};

const KEY: &str = "0123456789abcdef-app";
const CONFIG: &str = r#"{ keys: [ { name: app, key: "0123456789abcdef-app" } ], name_header: x-consumer,
    from: [ { header: x-api-key }, { header: authorization, scheme: Bearer }, { query: api_key }, { query: key }, { cookie: key } ] }"#;

#[tokio::test]
async fn a_key_opens_wherever_it_is_carried_and_the_upstream_sees_its_name_and_not_the_key() {
    let mirror = mirror().await;
    let gateway = plain("api-key", CONFIG, &mirror);
    for (path, header) in [
        ("/a?x=1", format!("x-api-key: {KEY}\r\n")),
        ("/a?x=1", format!("Authorization: bearer {KEY}\r\n")),
        (&*format!("/a?api%5fkey={KEY}&x=1"), String::new()),
        (&*format!("/a?api_key={KEY}&key={KEY}&x=1"), format!("x-api-key: {KEY}\r\n")),
        ("/a?x=1", format!("cookie: a=b; key={KEY}\r\n")),
    ] {
        let answer =
            ask(&gateway, "GET", path, &format!("{header}x-consumer: forged\r\nX-CONSUMER: twice\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("GET /a?x=1 ") && answer.contains("\nx-consumer: app\n"), "{answer}");
        for gone in [KEY, "forged", "twice"] {
            assert!(!answer.contains(gone), "{gone} in {answer}");
        }
    }
}

#[tokio::test]
async fn what_carries_no_good_key_is_challenged_and_the_log_says_why_and_not_what() {
    let mirror = mirror().await;
    let gateway = plain("api-key", CONFIG, &mirror);
    for (path, headers, why) in [
        ("/", String::new(), "no key"),
        ("/", "x-api-key: wrong-wrong-wrong-wrong\r\n".to_owned(), "unknown key"),
        ("/", format!("x-api-key: {KEY}\r\nx-api-key: {KEY}\r\n"), "several headers x-api-key"),
        (
            "/",
            format!("authorization: Bearer {KEY}\r\nauthorization: Basic eDp5\r\n"),
            "several headers authorization",
        ),
        ("/?api_key=another-another", format!("x-api-key: {KEY}\r\n"), "several keys"),
    ] {
        let answer = ask(&gateway, "GET", path, &headers).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{why}: {answer}");
        assert!(answer.contains("www-authenticate: Bearer realm=\"api\"\r\n"), "{answer}");
        assert!(answer.ends_with("unauthorized\n"), "{answer}");
        assert_eq!(gateway.wait_for_access(why)["filter"], "api-key");
    }
    assert!(!gateway.log().contains(KEY) && !gateway.log().contains("wrong-wrong"), "keys are in no log");
}

#[tokio::test]
async fn a_key_comes_from_the_environment_by_a_grant_and_without_it_the_configuration_is_refused() {
    let mirror = mirror().await;
    let config = |grants: &str| {
        // A variable that every process of a test has.
        let filter = format!(
            "environment: {{ APP_KEY: \"{KEY}\" }}, {grants} config: {{ keys: [ {{ name: app, environment: APP_KEY }} ] }}"
        );
        plain_config("api-key", "{}", &mirror).replace("config: {}", &filter)
    };
    let gateway = Setup::new().plugin("api-key").config(config("")).start();
    assert!(ask(&gateway, "GET", "/", &format!("x-api-key: {KEY}\r\n")).await.starts_with("HTTP/1.1 200"));
    let without = config("").replace("APP_KEY:", "OTHER:");
    let gateway = Setup::new().plugin("api-key").config(without).launch();
    let line = gateway.wait_for_log("the variable `APP_KEY` is not set");
    assert!(line.contains("grants: { environment: [APP_KEY] }"), "{line}");
}

#[tokio::test]
async fn callers_of_grpc_learn_that_they_are_unauthenticated() {
    let mirror = mirror().await;
    let gateway = plain("api-key", CONFIG, &mirror);
    let mut client = Client::h2(gateway.address("web")).await;
    let request = client.request("POST", "/service/Method").header("content-type", "application/grpc");
    let answer = client.call(request.body(empty()).expect("a request")).await.expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.header("grpc-status").as_str()), (200, "16"));
}
