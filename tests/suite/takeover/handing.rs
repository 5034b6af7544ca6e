//! What can go wrong between the two processes, with one of them played by hand.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use http::Response;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use weir_tests::http::{asking, full, read_head};
use weir_tests::wait::soon;
use weir_tests::{Gateway, Setup};

use super::{REFUSES, answering, hear, say};

/// A place for a door in a folder of its own, and somebody who waits there.
fn waiting(setup: &Setup) -> (PathBuf, UnixListener) {
    let folder = setup.folder().join("own");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).expect("a mode");
    let listener = UnixListener::bind(folder.join("door.sock")).expect("a place");
    (folder, listener)
}

/// A configuration that names the place.
fn placed(config: &str) -> String {
    config.replace("workers: 1", "workers: 1, takeover_socket: own/door.sock")
}

/// Hears that a new process asks, and offers it nothing. `before` comes in between.
async fn offer_nothing(listener: &UnixListener, before: impl Fn()) -> UnixStream {
    let (mut new, _) = soon("somebody", listener.accept()).await.expect("a connection");
    assert_eq!(hear(&mut new).await["ask"]["protocol"], 1);
    before();
    say(&mut new, r#"{"offer":{"version":"9.9","sockets":[]}}"#).await;
    new
}

#[tokio::test]
async fn a_process_whose_own_door_cannot_be_made_does_not_take_over() {
    let setup = Setup::new().config(placed(&answering(1, "new")));
    let (folder, listener) = waiting(&setup);
    let new = setup.takes_over();
    let anybodys = || {
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).expect("a mode");
    };
    let mut socket = offer_nothing(&listener, anybodys).await;
    let mut said = Vec::new();
    let _ = soon("the end", tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut said)).await;
    assert!(said.is_empty(), "the old process hears of no successor: {}", String::from_utf8_lossy(&said));
    assert_eq!(exit_of(new).await, (Some(1), true));
}

/// How a process has ended, and whether it said that its takeover socket cannot be made and never listened.
async fn exit_of(gateway: Gateway) -> (Option<i32>, bool) {
    tokio::task::spawn_blocking(move || {
        let code = gateway.wait_for_exit().code();
        (code, gateway.log().contains("the takeover socket ") && !gateway.logged("listening"))
    })
    .await
    .expect("it ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_told_to_end_before_it_is_ready_answers_what_it_has_accepted() {
    let (upstream, mut asked) = asking().await;
    let setup = Setup::new().config(placed(&super::forwarding(&upstream, 1)));
    let (_folder, listener) = waiting(&setup);
    let new = setup.takes_over();
    let mut old = offer_nothing(&listener, || {}).await;
    assert!(hear(&mut old).await["ready"].is_object(), "it accepts, and waits for the old one");
    let mut client = TcpStream::connect(new.address("web")).await.expect("it listens");
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    let (_, answer) = soon("the request", asked.recv()).await.expect("it comes");
    new.signal(Signal::TERM);
    new.wait_for_log("draining timeout=");
    answer.send(Response::new(full("late"))).expect("the upstream waits");
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    drop(client);
    let code = tokio::task::spawn_blocking(move || new.wait_for_exit().code()).await.expect("it ends");
    assert_eq!(code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_predecessor_that_says_nothing_is_not_called_gone() {
    let setup = Setup::new().config(placed(&answering(1, "new")));
    let (_folder, listener) = waiting(&setup);
    let new = setup.takes_over();
    let mut old = offer_nothing(&listener, || {}).await;
    assert!(hear(&mut old).await["ready"].is_object());
    new.wait_for_log("the old process has not said that it takes nothing new");
    new.wait_for_log("ready to serve");
    assert!(!new.logged("the old process has gone"));
    drop(old);
}

#[tokio::test]
async fn a_plugin_that_is_of_no_use_is_all_that_a_new_process_complains_of() {
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let good = answering(1, "old").replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let old = Setup::new().config(good.clone()).start();
    std::fs::write(old.plugins().join("refuses.wasm"), weir_tests::guests::wat(REFUSES)).expect("written");
    old.write_config(&good.replace("http: {", "http: { filters: [ { plugin: refuses } ],"));
    let new = old.launch_successor();
    assert_eq!(new.wait_for_exit().code(), Some(1));
    new.wait_for_log("refuses");
    assert!(!new.log().contains("in use"), "{}", new.log());
    assert_eq!(weir_tests::http::get(old.address("web"), "/").await.text(), "old");
}
