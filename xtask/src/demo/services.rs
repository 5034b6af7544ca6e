//! The services behind the demo's Weirs. Each tells who it is and what it was asked.

use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::certs::Authority;
use crate::demo::{fetch, ports};

/// A service.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: &'static str,
    /// Where it listens.
    pub address: &'static str,
    /// How it is spoken to.
    transport: Transport,
}

#[derive(Debug)]
enum Transport {
    /// TLS, with a certificate for this name.
    Tls(&'static str),
    /// TLS, with a certificate for this name, and only with clients that have one of the same authority.
    MutualTls(&'static str),
    /// Plain HTTP. The application reaches others through the sidecar that listens here.
    Plain { sidecar: &'static str },
}

/// The services of the demo.
pub const SERVICES: &[Service] = &[
    Service {
        name: "catalog-prod",
        address: "127.0.0.1:19001",
        transport: Transport::Tls("prod.catalog.meshproxy.internal"),
    },
    Service {
        name: "catalog-test",
        address: "127.0.0.1:19002",
        transport: Transport::Tls("test.catalog.meshproxy.internal"),
    },
    Service {
        name: "api",
        address: "127.0.0.1:19003",
        transport: Transport::MutualTls("spiffe://mesh.internal/api"),
    },
    Service {
        name: "orders",
        address: "127.0.0.2:18080",
        transport: Transport::Plain { sidecar: "127.0.0.2:15001" },
    },
    Service {
        name: "payments",
        address: "127.0.0.3:18080",
        transport: Transport::Plain { sidecar: "127.0.0.3:15001" },
    },
];

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

impl Service {
    /// How it is spoken to, in words.
    pub fn spoken_to(&self) -> String {
        match self.transport {
            Transport::Tls(name) => format!("TLS as {name}"),
            Transport::MutualTls(name) => format!("mutual TLS as {name}"),
            Transport::Plain { sidecar } => format!("plain HTTP, with the sidecar {sidecar}"),
        }
    }

    /// What it needs for TLS. Its key is nowhere but here.
    fn tls(&self, authority: &Authority) -> anyhow::Result<Option<TlsAcceptor>> {
        let name = match self.transport {
            Transport::Tls(name) | Transport::MutualTls(name) => name,
            Transport::Plain { .. } => return Ok(None),
        };
        let certificate = authority.sign(self.name, &[name])?;
        let chain =
            CertificateDer::pem_slice_iter(certificate.cert.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = if matches!(self.transport, Transport::MutualTls(_)) {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes())?)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build()?)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Some(TlsAcceptor::from(Arc::new(config))))
    }

    /// Accepts connections for ever.
    async fn run(&'static self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        loop {
            match listener.accept().await {
                Ok((socket, _)) => drop(tokio::spawn(self.connection(socket, tls.clone()))),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn connection(&'static self, socket: TcpStream, tls: Option<TlsAcceptor>) {
        let Some(tls) = tls else { return self.serve(socket, "plain HTTP".to_owned()).await };
        if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(socket)).await {
            let (_, session) = stream.get_ref();
            let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
            let client = if session.peer_certificates().is_some() { "a" } else { "no" };
            let how = format!("{version}, {client} client certificate");
            self.serve(stream, how).await;
        }
    }

    async fn serve(&'static self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, how: String) {
        let how: Arc<str> = how.into();
        let service = service_fn(move |request| {
            let how = Arc::clone(&how);
            async move {
                let answer = self.answer(request, &how).await;
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer))))
            }
        });
        // A client that goes is no failure of the service.
        let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(io), service).await;
    }

    /// What it says to a request: who it is, and what it saw. An application passes `/ask/NAME` on to that name.
    async fn answer(&self, request: Request<Incoming>, how: &str) -> String {
        let path = request.uri().path();
        if let (Transport::Plain { sidecar }, Some(peer)) = (&self.transport, path.strip_prefix("/ask/")) {
            return self.ask(sidecar, peer).await;
        }
        let mut text =
            format!("this is {} ({how})\n{} {path} {:?}\n", self.name, request.method(), request.version());
        // HTTP/2 has it beside the headers.
        if let Some(authority) = request.uri().authority() {
            // A string takes everything.
            let _ = writeln!(text, "host: {authority}");
        }
        for (name, value) in request.headers() {
            let _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
        }
        text
    }

    async fn ask(&self, sidecar: &str, peer: &str) -> String {
        match fetch::get(sidecar, peer, "/").await {
            Ok((status, text)) => {
                format!("this is {}, and {peer} answers {}:\n\n{text}", self.name, status.as_u16())
            }
            Err(error) => format!("this is {}, and {peer} cannot be asked: {error:#}\n", self.name),
        }
    }
}

/// The services as they run. They end when this is dropped.
pub struct Services {
    _tasks: JoinSet<()>,
}

impl Services {
    /// Starts them all.
    ///
    /// # Errors
    /// When one cannot listen.
    pub async fn start(authority: &Authority) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        for service in SERVICES {
            let address: SocketAddr = service.address.parse().context("an address in the demo's table")?;
            let bound = TcpListener::bind(address).await;
            let listener =
                bound.map_err(|error| anyhow::anyhow!(ports::explain(address, service.name, &error)))?;
            tasks.spawn(service.run(listener, service.tls(authority)?));
        }
        Ok(Self { _tasks: tasks })
    }
}
