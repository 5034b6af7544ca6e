//! What the streams of an instance that fails meet: each case of `on_failure`.

use http_body_util::BodyExt;
use hyper::Error;
use hyper::body::Frame;
use weir_tests::guests::wat;
use weir_tests::http::{Answer, Client, asking, empty, fed, full, raw};
use weir_tests::upstream::Upstream;
use weir_tests::wait::{soon, until};
use weir_tests::{Gateway, Setup};

/// A module that does these things; the second request to an instance traps when `second` says so.
#[derive(Default)]
struct Guest {
    /// On the headers of the first request.
    first: &'static str,
    /// On the headers of further requests.
    second: &'static str,
    /// On the headers of responses.
    response: &'static str,
    /// On the bodies of responses.
    body: &'static str,
    /// On data from downstream.
    data: &'static str,
}

const GO_ON: &str = "(return (i32.const 0))";
const HOLD: &str = "(drop (call $log (i32.const 2) (i32.const 64) (i32.const 9))) (return (i32.const 1))";
const TRAP: &str = "unreachable";
const TRAP_AT_THE_END: &str = "(if (local.get 2) (then unreachable))";
const EDIT_REQUEST: &str =
    "(drop (call $add (i32.const 0) (i32.const 80) (i32.const 8) (i32.const 80) (i32.const 8)))";
const EDIT_AND_TRAP: &str =
    "(drop (call $add (i32.const 2) (i32.const 80) (i32.const 8) (i32.const 80) (i32.const 8))) unreachable";

impl Guest {
    fn wasm(&self) -> Vec<u8> {
        let or = |what: &'static str| if what.is_empty() { GO_ON } else { what };
        wat(&format!(
            r#"(module
              (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
              (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
              (memory (export "memory") 1)
              (global $requests (mut i32) (i32.const 0))
              (data (i32.const 64) "it holds.")
              (data (i32.const 80) "x-edited")
              (func (export "malloc") (param i32) (result i32) i32.const 1024)
              (func (export "proxy_abi_version_0_2_1"))
              (func (export "proxy_on_context_create") (param i32 i32))
              (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (global.set $requests (i32.add (global.get $requests) (i32.const 1)))
                (if (i32.eq (global.get $requests) (i32.const 1)) (then {}))
                {} i32.const 0)
              (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) {} i32.const 0)
              (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) {} i32.const 0)
              (func (export "proxy_on_downstream_data") (param i32 i32 i32) (result i32) {} i32.const 0))"#,
            or(self.first),
            or(self.second),
            or(self.response),
            or(self.body),
            or(self.data),
        ))
    }

    fn gateway(&self, on_failure: &str, upstream: &Upstream) -> Gateway {
        let filter = format!("{{ plugin: faulty, on_failure: {on_failure} }}");
        let config = format!(
            "runtime: {{ workers: 1 }}\n\
             listeners:\n\
             \x20 - {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {filter} ], routes: [ {{ cluster: up }} ] }} }}\n\
             \x20 - {{ name: tcp, address: \"127.0.0.1:0\", filters: [ {filter} ], tcp: {{ cluster: up }} }}\n\
             clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
            upstream.address
        );
        Setup::new().plugin_bytes("faulty", &self.wasm()).config(config).start()
    }
}

/// What the client of a stream gets.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Status(u16),
    Reset,
}

fn got(result: Result<Answer, Error>) -> Got {
    match result {
        Ok(answer) => {
            assert!(answer.status != 503 || answer.text().is_empty(), "{answer:?}");
            Got::Status(answer.status.as_u16())
        }
        Err(_) => Got::Reset,
    }
}

async fn ask(gateway: &Gateway) -> Result<Answer, Error> {
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("GET", "/").body(empty()).expect("a request");
    client.call(request).await
}

/// Waits for a line of the log, and lets clients go on meanwhile.
async fn logged(gateway: &Gateway, line: &str) {
    until(line, async || gateway.logged(line).then_some(())).await;
}

/// A request that is under way when another one's call ends the instance.
async fn beside_a_trap(guest: Guest, on_failure: &str) -> Got {
    let (upstream, mut asked) = asking().await;
    let gateway = guest.gateway(on_failure, &upstream);
    let address = gateway.address("web");
    let first = tokio::spawn(async move {
        let mut client = Client::h1(address).await;
        let request = client.request("GET", "/first").body(empty()).expect("a request");
        client.call(request).await
    });
    let waiting = if guest.first == HOLD {
        logged(&gateway, "it holds.").await;
        None
    } else {
        soon("the first request", asked.recv()).await
    };
    let second = tokio::spawn({
        let address = gateway.address("web");
        async move {
            let mut client = Client::h1(address).await;
            let request = client.request("GET", "/second").body(empty()).expect("a request");
            client.call(request).await
        }
    });
    logged(&gateway, "a plugin failed and is started anew").await;
    if on_failure == "open" {
        let (_, answer) =
            soon("the second request, without the filter", asked.recv()).await.expect("a request");
        assert!(answer.send(http::Response::new(full("second"))).is_ok());
    }
    let wanted = if on_failure == "open" { Got::Status(200) } else { Got::Status(503) };
    assert_eq!(got(soon("the second answer", second).await.expect("a client")), wanted);
    if let Some((_, answer)) = waiting {
        // Where the stream has ended, nobody takes it.
        let _ = answer.send(http::Response::new(full("first")));
    }
    got(soon("the first answer", first).await.expect("a client"))
}

#[tokio::test]
async fn a_request_that_the_filter_holds_is_503_or_reset_when_another_ends_its_instance() {
    for (on_failure, wanted) in [("closed", Got::Status(503)), ("open", Got::Reset)] {
        let guest = Guest { first: HOLD, second: TRAP, ..Guest::default() };
        assert_eq!(beside_a_trap(guest, on_failure).await, wanted, "{on_failure}");
    }
}

#[tokio::test]
async fn a_request_at_the_upstream_is_503_or_goes_on_when_another_ends_the_instance() {
    for (on_failure, wanted) in [("closed", Got::Status(503)), ("open", Got::Status(200))] {
        let guest = Guest { second: TRAP, ..Guest::default() };
        assert_eq!(beside_a_trap(guest, on_failure).await, wanted, "{on_failure}");
    }
}

#[tokio::test]
async fn a_fault_in_the_response_meets_the_policy_of_what_was_changed_and_sent_of_it() {
    let trap = || Guest { response: TRAP, ..Guest::default() };
    let edit = || Guest { response: EDIT_AND_TRAP, ..Guest::default() };
    let edited_request = || Guest { first: EDIT_REQUEST, response: TRAP, ..Guest::default() };
    for (guest, on_failure, wanted) in [
        (trap(), "closed", Got::Status(503)),
        (trap(), "open", Got::Status(200)),
        (edit(), "closed", Got::Status(503)),
        (edit(), "open", Got::Reset),
        // The other half is what it has changed.
        (edited_request(), "open", Got::Status(200)),
    ] {
        let (upstream, mut asked) = asking().await;
        let gateway = guest.gateway(on_failure, &upstream);
        let answering = async {
            let (_, answer) = soon("the request", asked.recv()).await.expect("a request");
            assert!(answer.send(http::Response::new(full("whole"))).is_ok());
        };
        let (result, ()) = tokio::join!(ask(&gateway), answering);
        assert_eq!(got(result), wanted, "{on_failure}: {} {}", guest.first, guest.response);
        let line = gateway.wait_for_access("\"path\":\"/\"");
        if wanted != Got::Status(200) {
            assert_eq!(
                (&line["reason"], &line["filter"]),
                (&"filter_failure".into(), &"faulty".into()),
                "{line}"
            );
        }
    }
}

#[tokio::test]
async fn a_response_whose_headers_are_sent_is_cut_off_or_goes_on_without_the_filter() {
    for (on_failure, whole) in [("closed", false), ("open", true)] {
        let (upstream, mut asked) = asking().await;
        let gateway = Guest { body: TRAP_AT_THE_END, ..Guest::default() }.gateway(on_failure, &upstream);
        let mut client = Client::h1(gateway.address("web")).await;
        let request = client.request("GET", "/").body(empty()).expect("a request");
        let answering = async {
            let (_, answer) = soon("the request", asked.recv()).await.expect("a request");
            let (feed, body) = fed();
            feed.send(Frame::data("part".into())).expect("the body is there");
            assert!(answer.send(http::Response::new(body)).is_ok());
            feed
        };
        let (response, feed) = tokio::join!(client.send(request), answering);
        let response = response.expect("headers");
        assert_eq!(response.status(), 200, "{on_failure}");
        drop(feed);
        let body = soon("the end", response.into_body().collect()).await;
        assert_eq!(body.is_ok_and(|body| body.to_bytes() == "part"), whole, "{on_failure}");
        logged(&gateway, "a plugin failed and is started anew").await;
    }
}

#[tokio::test]
async fn a_connection_whose_filter_fails_is_closed_or_goes_on() {
    let (upstream, mut asked) = asking().await;
    let answering = tokio::spawn(async move {
        while let Some((_, answer)) = asked.recv().await {
            let _ = answer.send(http::Response::new(full("over TCP")));
        }
    });
    for (on_failure, passes) in [("closed", false), ("open", true)] {
        let gateway = Guest { data: TRAP, ..Guest::default() }.gateway(on_failure, &upstream);
        let answer =
            raw(gateway.address("tcp"), "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert_eq!(answer.contains("over TCP"), passes, "{on_failure}: {answer}");
        logged(&gateway, "a plugin failed and is started anew").await;
    }
    answering.abort();
}
