//! Who is who in scenarios that run over TLS: client, proxy and upstream each show a certificate and ask for one.

use std::path::Path;
use std::sync::LazyLock;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use xtask::certs::Certificate;

use crate::tls::{authority, certificate};

/// The name that the client asks the proxy for, and the one that the proxy asks the upstream for.
pub const NAMES: (&str, &str) = ("a.example", "api.internal");

/// The client's certificate.
pub static CLIENT: LazyLock<Certificate> =
    LazyLock::new(|| certificate(&["spiffe://mesh.internal/client", "client.internal"]));

/// The proxy's.
pub static PROXY: LazyLock<Certificate> =
    LazyLock::new(|| certificate(&["spiffe://mesh.internal/proxy", NAMES.0]));

/// The upstream's.
pub static SERVER: LazyLock<Certificate> =
    LazyLock::new(|| certificate(&["spiffe://mesh.internal/api", NAMES.1]));

/// The files that a proxy needs: its certificate, its key, and the authority.
pub fn files() -> [(&'static str, &'static str); 3] {
    [("own.pem", &PROXY.cert), ("own.key", &PROXY.key), ("ca.pem", authority().pem())]
}

/// The transport sockets of Envoy's listener and cluster, with the files in a folder.
pub fn in_envoy(folder: &Path) -> (Value, Value) {
    let file = |name: &str| json!({ "filename": folder.join(name) });
    let mut common = json!({
        "tls_certificates": [{ "certificate_chain": file("own.pem"), "private_key": file("own.key") }],
        "validation_context": { "trusted_ca": file("ca.pem") },
    });
    common["tls_params"] = json!({ "tls_maximum_protocol_version": "TLSv1_3" });
    let upstream = socket("Upstream", json!({ "common_tls_context": common, "sni": NAMES.1 }));
    common["alpn_protocols"] = json!(["h2", "http/1.1"]);
    let listener =
        socket("Downstream", json!({ "common_tls_context": common, "require_client_certificate": true }));
    (listener, upstream)
}

/// The filter that makes Envoy know which name the client asks for.
pub fn inspector() -> Value {
    json!({
        "name": "envoy.filters.listener.tls_inspector",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        },
    })
}

fn socket(side: &str, mut config: Value) -> Value {
    let kind = format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{side}TlsContext");
    config["@type"] = kind.into();
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": config })
}

/// A line with names in place of what differs from run to run: keys are new each time.
pub fn named(mut line: String) -> String {
    for (name, certificate) in [("client", &*CLIENT), ("proxy", &*PROXY), ("upstream", &*SERVER)] {
        let der = CertificateDer::from_pem_slice(certificate.cert.as_bytes()).expect("PEM");
        let digest: String = Sha256::digest(&der).iter().map(|byte| format!("{byte:02x}")).collect();
        line = line.replace(&digest, &format!("(SHA-256 of the {name}'s certificate)"));
        // As the guest writes it into a line.
        let pem = certificate.cert.replace('\r', "").replace('\n', "\\n");
        line = line.replace(&pem, &format!("(the {name}'s certificate as PEM)"));
    }
    line
}
