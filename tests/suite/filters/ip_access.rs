//! `ip-access`.

use weir_tests::http::mirror;

use super::{ask, plain, plain_config};

#[tokio::test]
async fn the_address_of_the_connection_decides_and_no_header() {
    let mirror = mirror().await;
    let denied = plain("ip-access", r#"{ rules: [ { name: far, allow: ["192.0.2.0/24"] } ] }"#, &mirror);
    for forged in
        ["", "x-forwarded-for: 192.0.2.1\r\n", "x-real-ip: 192.0.2.1\r\n", "forwarded: for=192.0.2.1\r\n"]
    {
        let answer = ask(&denied, "GET", "/", forged).await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.ends_with("denied\n"), "{forged}: {answer}");
    }
    let line = denied.wait_for_access("127.0.0.1 denied by default");
    assert_eq!(line["filter"], "ip-access");
    let allowed = plain(
        "ip-access",
        r#"{ rules: [ { deny: ["127.0.0.2"] }, { allow: ["::ffff:127.0.0.0/104"] } ] }"#,
        &mirror,
    );
    assert!(ask(&allowed, "GET", "/", "").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn behind_trusted_proxies_the_client_is_whom_the_last_of_them_names() {
    let mirror = mirror().await;
    let config = r#"{ rules: [ { name: bad, deny: ["192.0.2.66"] }, { allow: ["192.0.2.0/24"] } ], trusted_proxies: ["127.0.0.0/8", "10.0.0.0/8"] }"#;
    let text = format!("trusted_proxies: [127.0.0.0/8]\n{}", plain_config("ip-access", config, &mirror));
    let gateway = weir_tests::Setup::new().plugin("ip-access").config(text).start();
    for (named, status) in [
        ("x-forwarded-for: 192.0.2.1\r\n", "200"),
        ("x-forwarded-for: 192.0.2.1, 10.0.0.9\r\n", "200"),
        ("x-forwarded-for: 192.0.2.1\r\nX-Forwarded-For: 10.0.0.9\r\n", "200"),
        ("x-forwarded-for: 192.0.2.1, 192.0.2.66\r\n", "403"),
        ("x-forwarded-for: 192.0.2.1, ::ffff:192.0.2.66\r\n", "403"),
        ("x-forwarded-for: 192.0.2.1, 203.0.113.1, 10.0.0.9\r\n", "403"),
        ("x-forwarded-for: 192.0.2.1\r\nx-forwarded-for: 203.0.113.1\r\n", "403"),
        ("x-forwarded-for: 192.0.2.1, nobody\r\n", "403"),
        ("", "403"),
    ] {
        let answer = ask(&gateway, "GET", "/", named).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{named}: {answer}");
    }
    gateway.wait_for_access("192.0.2.66 denied by bad");
    gateway.wait_for_access("an unknown address denied by default");
}
