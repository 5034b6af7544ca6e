//! The contract, case by case: every host function in every phase, with arguments that are good, that stand at a
//! boundary, and that are hostile.
//!
//! A case is a row: when, which function, with what, and what is to come of it. `guest.rs` makes a guest of the
//! rows, and the gateway's log tells what the guest saw.

mod allocator;
mod answers;
mod apart;
mod bounds;
mod guest;
mod later;
mod matrix;
mod offers;
mod pointers;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_tests::http::{Body, Client, upstream, with_trailers};
use weir_tests::trampoline::{FUNCTIONS, Signature};
use weir_tests::upstream::Upstream;
use weir_tests::{Gateway, Setup};

use answers::{line, wrong};
use guest::{Case, Phase};

fn trailers(value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("x-end"), HeaderValue::from_static(value))])
}

/// A gRPC service that sends back what it gets, and ends with a status that is not good.
async fn denied(request: Request<Incoming>) -> Response<Body> {
    let said = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut trailers = trailers("trailing");
    trailers.insert("grpc-status", HeaderValue::from_static("7"));
    trailers.insert("grpc-message", HeaderValue::from_static("not for you"));
    let answer = Response::builder().header("content-type", "application/grpc").header("x-begin", "initial");
    answer.body(with_trailers(said, trailers)).expect("a response")
}

/// Makes the calls in an HTTP exchange of which everything is there, and says what was wrong.
async fn run_http(cases: &[Case], allocator: &str) -> Vec<String> {
    run_http_with("", cases, allocator).await
}

/// The same with further settings of the filter.
async fn run_http_with(settings: &str, cases: &[Case], allocator: &str) -> Vec<String> {
    let upstream = upstream(|request| async {
        if request.headers().get("content-type").is_some_and(|kind| kind == "application/grpc") {
            return denied(request).await;
        }
        // It waits for the whole request, so that every callback of it comes.
        request.into_body().collect().await.expect("a whole request");
        Response::new(with_trailers("answered", trailers("response")))
    })
    .await;
    let config = format!(
        "runtime: {{ workers: 1 }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: guest {settings}, cpu: 5s, log_lines: 1000000, vm_id: vm, \
           root_id: root, vm_config: for the VM, config: for the plugin, environment: {{ NAME: value, TWO: \"2\" }}, grants: {{ clusters: [up], foreign_functions: \
           [set_envoy_filter_state, expr_create, expr_evaluate, expr_delete] }} }} ], \
           routes: [ {{ name: main, cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"], protocol: http2 }} ]",
        upstream.address
    );
    let gateway = Setup::new().plugin_bytes("guest", &guest::guest(cases, allocator)).config(config).start();
    let mut client = Client::h2(gateway.address("web")).await;
    let request = client.request("POST", "/path?query").header("user-agent", "test").header("x-many", "1");
    let request = request.header("x-many", "2").body(with_trailers("asked", trailers("request")));
    let answer = client.call(request.expect("a request")).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", gateway.log());
    finish(&gateway, cases)
}

/// Makes the calls on a connection.
async fn run_tcp(cases: &[Case], allocator: &str) -> Vec<String> {
    run_tcp_with("", cases, allocator).await
}

/// The same with further settings of the filter.
async fn run_tcp_with(settings: &str, cases: &[Case], allocator: &str) -> Vec<String> {
    let upstream = Upstream::echo().await;
    let config = format!(
        "runtime: {{ workers: 1 }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", filters: [ {{ plugin: guest {settings}, cpu: 5s, log_lines: 1000000, vm_id: vm, root_id: root }} ], \
           tcp: {{ cluster: up }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        upstream.address
    );
    let gateway = Setup::new().plugin_bytes("guest", &guest::guest(cases, allocator)).config(config).start();
    let mut socket = TcpStream::connect(gateway.address("web")).await.expect("it listens");
    socket.write_all(b"asked").await.expect("the gateway takes it");
    socket.shutdown().await.expect("the gateway takes it");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.expect("an answer");
    assert_eq!(answer, b"asked", "{}", gateway.log());
    finish(&gateway, cases)
}

/// Waits for the last call of each phase.
fn finish(gateway: &Gateway, cases: &[Case]) -> Vec<String> {
    let last: BTreeMap<Phase, usize> =
        cases.iter().enumerate().map(|(number, case)| (case.phase, number)).collect();
    for (phase, number) in last {
        // The last of all phases.
        if phase == Phase::RootDone {
            gateway.signal(Signal::TERM);
        }
        gateway.wait_for_log(&line(number));
    }
    wrong(cases, &gateway.log())
}

fn assert_right(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_function_of_the_tables_is_driven_in_every_way_there_is() {
    let names = |cases: &[Case]| cases.iter().map(|case| case.function).collect::<BTreeSet<_>>();
    // What ends an exchange is driven by tests of its own, and stands in the table of what is good all the same.
    for (way, driven) in [
        ("by the matrix of phases", names(&matrix::http())),
        ("with good arguments", pointers::good().iter().map(|(name, ..)| *name).collect()),
        ("with hostile pointers", names(&pointers::hostile())),
        ("by its values", names(&values::all())),
    ] {
        let wanted = |f: &&Signature| match way {
            // A function without an address has nothing to be hostile with.
            "with hostile pointers" => f.params.iter().any(pointers::is_address),
            // What WASI has does not depend on the phase.
            "by the matrix of phases" | "by its values" => f.is_host(),
            _ => true,
        };
        let missing: Vec<&str> =
            FUNCTIONS.iter().filter(wanted).map(|f| f.name).filter(|name| !driven.contains(name)).collect();
        assert!(missing.is_empty(), "not driven {way}: {missing:?}");
    }
}
