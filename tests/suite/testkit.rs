//! `weir-testkit`: tests of filters in Rust.

use std::time::Duration;

use weir_testkit::Plugin;
use weir_tests::guests::{filters, test_guests};

fn guest(name: &str) -> Plugin {
    Plugin::load(test_guests().join(format!("{}.wasm", name.replace('-', "_"))))
}

#[test]
fn a_filters_own_test_is_ten_lines() {
    let plugin = Plugin::load(filters().join("header-rewrite.wasm"));
    let mut bed = plugin.filter("{ config: { request: { set: { x-team: payments } } } }").start();

    let seen = bed.get("/").header("x-team", "own").upstream("{ status: 404, body: none }").send();

    assert_eq!(seen.upstream_header("x-team").as_deref(), Some("payments"));
    assert_eq!((seen.status(), seen.body().as_str()), (Some(404), "none"));
}

#[test]
fn a_configuration_that_is_refused_says_why() {
    let plugin = Plugin::load(filters().join("authz.wasm"));
    let refused = plugin.filter("{ config: { rules: 7 } }").try_start().err().expect("it is refused");
    assert!(refused.contains("rules") || refused.contains("sequence"), "{refused}");
}

#[test]
fn clusters_answer_as_planned_and_time_goes_by_when_it_is_told_to() {
    let mut bed = guest("official-auth")
        .filter("{ grants: { clusters: [authority] } }")
        .call("{ cluster: authority, times: 1, answer: { body: '2' } }")
        .start();
    assert_eq!(bed.get("/").send().status(), Some(200));
    bed.call("{ cluster: authority, answer: { body: '1' } }");
    let seen = bed.get("/a").send();
    assert_eq!(seen.status(), Some(403));
    assert_eq!(seen.calls.iter().map(|call| call.request.path.as_str()).collect::<Vec<_>>(), ["/a"]);

    let mut bed = guest("sharing").filter("{}").shared_data("ticks", "5").start();
    bed.pass(Duration::from_secs(1));
    assert_eq!(bed.shared_data("ticks").as_deref(), Some("55"));
}

#[test]
fn grpc_calls_and_streams_are_answered_message_by_message() {
    let mut bed = guest("official-grpc")
        .filter("{ grants: { clusters: [other] } }")
        .call("{ cluster: other, grpc: test.Greeter/Unary, answer: { body: hello } }")
        .call("{ cluster: other, grpc: test.Greeter/Stream, answer: { body: [one, two], grpc_status: 0 } }")
        .start();
    let seen = bed.get("/unary").send();
    let heard = seen.upstream_header("x-heard").expect("it goes on");
    assert!(heard.contains("hello"), "{heard}");
    assert_eq!(seen.calls.first().expect("a call").request.body, b"ann");
    let seen = bed.get("/stream").send();
    let heard = seen.upstream_header("x-heard").expect("it goes on");
    assert!(heard.contains("one") && heard.contains("two"), "{heard}");
    assert_eq!(seen.calls.first().expect("a call").request.body, b"annbobcat");
}

#[test]
fn a_network_filter_is_shown_a_connection() {
    let plugin = Plugin::load(filters().join("sni-router.wasm"));
    let mut bed = plugin.filter("{ config: { template: '{app}.internal', cluster: '{app}' } }").start();
    bed.connection("{ tls: { version: passthrough, server_name: orders.internal } }");
    let seen = bed.data("[{ client: hello }]");
    assert_eq!((seen.cluster.as_deref(), seen.upstream_gets.as_slice()), (Some("orders"), &b"hello"[..]));
    bed.connection("{ tls: { version: passthrough } }");
    assert!(bed.data("[{ client: hello }]").closed);
}
