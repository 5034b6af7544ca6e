//! TLS of the load: its certificate, and ClientHellos as bytes.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// What clients are configured with: they believe the authority, and show a certificate of it.
///
/// # Errors
/// When the folder does not hold what `side-by-side` writes.
pub fn config(folder: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem"))?)?;
    let chain = CertificateDer::pem_file_iter(folder.join("load.pem"))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(folder.join("load.key"))?;
    let mut config =
        ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// The name of the proxies in their certificate.
///
/// # Errors
/// Never: it is a name.
pub fn proxy() -> anyhow::Result<ServerName<'static>> {
    Ok(ServerName::try_from("proxy.bench.internal")?)
}

/// The bytes with which a client begins that asks for a name.
///
/// # Errors
/// When it is no name.
pub fn hello(name: &str) -> anyhow::Result<Vec<u8>> {
    let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned())?)?;
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes)?;
    }
    Ok(bytes)
}
