//! Certificates towards clusters.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use weir_tests::http::{Client, get, reflect, serve};
use weir_tests::tls::{authority, certificate, server_config};
use weir_tests::upstream::Upstream;
use weir_tests::wait::soon;
use weir_tests::{Gateway, Setup};
use xtask::certs::Certificate;

use super::{der, metric, put, until_degraded, until_ready};

const API: &str = "spiffe://mesh.internal/api";

/// An HTTP server behind TLS that tells which certificate each new connection shows, and counts requests.
pub(super) async fn server(config: ServerConfig) -> (Upstream, UnboundedReceiver<Vec<u8>>, Arc<AtomicUsize>) {
    let (tell, told) = unbounded_channel();
    let (acceptor, served) = (TlsAcceptor::from(Arc::new(config)), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&served);
    let upstream = Upstream::new(move |socket| {
        let (tell, acceptor, count) = (tell.clone(), acceptor.clone(), Arc::clone(&count));
        async move {
            let Ok(stream) = acceptor.accept(socket).await else { return };
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            // A test that is over listens no more.
            let _ = tell.send(shown.map(|leaf| leaf.to_vec()).unwrap_or_default());
            let answer = move |request| {
                count.fetch_add(1, Ordering::SeqCst);
                reflect(request)
            };
            serve(stream, answer).await;
        }
    })
    .await;
    (upstream, told, served)
}

fn setup(own: &Certificate) -> Setup {
    Setup::new().file("ca.pem", authority().pem()).file("own.pem", &own.cert).file("own.key", &own.key)
}

pub(super) fn config(upstream: &Upstream, tls: &str) -> String {
    format!(
        "runtime: {{ workers: 1 }}\n\
         listeners:\n\
         - {{ name: web, address: \"127.0.0.1:0\", http: {{ routes: [ {{ cluster: up }} ] }} }}\n\
         - {{ name: tcp, address: \"127.0.0.1:0\", tcp: {{ cluster: up }} }}\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"], tls: {{ ca: ca.pem, {tls} }} }} ]",
        upstream.address
    )
}

async fn status(gateway: &Gateway) -> u16 {
    get(gateway.address("web"), "/").await.status.as_u16()
}

#[tokio::test]
async fn new_connections_show_the_new_pair_and_those_that_are_there_go_on() {
    for alpn in ["http/1.1", "h2"] {
        let (first, second) = (certificate(&["own"]), certificate(&["own"]));
        let server = server(server_config(&certificate(&[API]), true, &[alpn])).await;
        let (upstream, mut told, _) = server;
        let tls = format!("cert: own.pem, key: own.key, verify_identity: [\"{API}\"]");
        let gateway = setup(&first).config(config(&upstream, &tls)).start();
        assert_eq!(status(&gateway).await, 200);
        assert_eq!(soon("a connection", told.recv()).await, Some(der(&first)));
        put(gateway.folder(), "own.pem", &second.cert);
        until_degraded(&gateway, "cluster `up`: the key in").await;
        put(gateway.folder(), "own.key", &second.key);
        until_ready(&gateway).await;
        gateway.wait_for_log("cluster `up`: new certificates are in force");
        assert_eq!(metric(&gateway, "weir_tls_rotations_total{cluster=\"up\",result=\"taken\"}").await, 1);
        // Over the connection that is there.
        assert_eq!(status(&gateway).await, 200);
        assert!(told.try_recv().is_err(), "{alpn}: no new connection");
        // Bytes have one of their own.
        let mut client = Client::h1(gateway.address("tcp")).await;
        if alpn == "http/1.1" {
            assert_eq!(client.get("/").await.status, 200);
        } else {
            drop(client);
        }
        assert_eq!(soon("a connection", told.recv()).await, Some(der(&second)), "{alpn}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_trusted_any_more_gets_nothing_not_even_over_a_connection_that_is_there() {
    let hour = SystemTime::now() + Duration::from_secs(3600);
    for (names, verify) in
        [("api.internal", "sni: api.internal".to_owned()), (API, format!("verify_identity: [\"{API}\"]"))]
    {
        for alpn in ["http/1.1", "h2"] {
            for what in ["authority", "list"] {
                let theirs = certificate(&[names]);
                let (upstream, _told, served) = server(server_config(&theirs, false, &[alpn])).await;
                let none = authority().revoke(&[], hour).expect("a list");
                let setup = setup(&theirs).file("crl.pem", none);
                let gateway = setup.config(config(&upstream, &format!("crl: crl.pem, {verify}"))).start();
                assert_eq!(status(&gateway).await, 200);
                match what {
                    "authority" => {
                        let other = xtask::certs::Authority::new("other").expect("a key");
                        put(gateway.folder(), "ca.pem", other.pem());
                    }
                    _ => {
                        let list = authority().revoke(&[&theirs], hour).expect("a list");
                        put(gateway.folder(), "crl.pem", list);
                    }
                }
                gateway.wait_for_log("cluster `up`: new certificates are in force");
                assert_eq!(status(&gateway).await, 503, "{what}, {alpn}, {names}");
                assert_eq!(served.load(Ordering::SeqCst), 1, "it has seen nothing more");
            }
        }
    }
}

#[tokio::test]
async fn an_endpoint_whose_certificate_has_expired_gets_nothing_and_sessions_do_not_outlive_it() {
    let now = SystemTime::now();
    for (names, verify) in
        [("api.internal", "sni: api.internal".to_owned()), (API, format!("verify_identity: [\"{API}\"]"))]
    {
        let past = (now - Duration::from_secs(100), now - Duration::from_secs(10));
        let expired = authority().sign_for("x", &[names], Some(past)).expect("a name");
        let (upstream, _told, served) = server(server_config(&expired, false, &["http/1.1"])).await;
        let gateway = setup(&expired).config(config(&upstream, &verify)).start();
        assert_eq!(status(&gateway).await, 503);
        assert_eq!(gateway.wait_for_access("\"path\":\"/\"")["reason"], "connect_failure");
        assert_eq!(served.load(Ordering::SeqCst), 0);
        // One that expires while it is talked to: a new connection is refused, as it resumes nothing.
        let soon = (now - Duration::from_secs(100), SystemTime::now() + Duration::from_secs(8));
        let brief = authority().sign_for("x", &[names], Some(soon)).expect("a name");
        let (upstream, mut told, _) = server(server_config(&brief, false, &["http/1.1"])).await;
        let gateway = setup(&brief).config(config(&upstream, &verify)).start();
        let connects = async || {
            let mut client = Client::h1(gateway.address("tcp")).await;
            let request = client.request("GET", "/").body(weir_tests::http::empty()).expect("a request");
            client.call(request).await.map(|answer| answer.status.as_u16())
        };
        assert_eq!(connects().await.expect("an answer"), 200);
        weir_tests::wait::until("the end of its time", async || connects().await.err()).await;
        while told.try_recv().is_ok() {}
        connects().await.expect_err("it has expired");
        assert!(told.try_recv().is_err(), "no handshake succeeds any more");
    }
}
