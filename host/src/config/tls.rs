//! TLS of listeners and of clusters.

use std::path::PathBuf;

use crate::config::section::{choice, section};
use crate::config::value::Spanned;

section! {
    /// TLS of a listener.
    pub struct ListenerTls {
        /// `passthrough` reads the server name and leaves the encryption alone; `terminate` decrypts.
        mode: Mode,
        /// The certificates, of which the server name chooses one; the first is for clients that name none.
        certificates: Vec<Spanned<CertificateFiles>>,
        /// The certificate authorities that client certificates must come from (PEM).
        client_ca: Option<Spanned<PathBuf>>,
        /// The certificates of clients that the authorities have revoked: a list of each authority that clients' chains
        /// have, all in one file (PEM). Once a list is out of date, whoever it is about is refused.
        client_crl: Option<Spanned<PathBuf>>,
        /// Whether clients show a certificate.
        client_certificate: Spanned<ClientCertificate> = "none",
        /// The hosts (`:authority`, Host) that requests may be for when clients are asked for a certificate.
        authority: Authority = "certified",
    }
}

choice! {
    /// The hosts that requests may be for on a connection whose client was asked for a certificate.
    pub enum Authority {
        /// The server name of the handshake, and the hosts of the certificate that the client was shown; others are
        /// answered by 421. A certificate without any host (SPIFFE) allows every one.
        Certified = "certified",
        /// Every one.
        Any = "any",
    }
}

choice! {
    /// What a listener does with TLS.
    pub enum Mode {
        /// Reads the server name and leaves the encryption alone.
        Passthrough = "passthrough",
        /// Decrypts.
        Terminate = "terminate",
    }
}

choice! {
    /// Whether clients show a certificate.
    pub enum ClientCertificate {
        /// They are not asked.
        None = "none",
        /// They are asked; one that is shown must be good.
        Optional = "optional",
        /// They must.
        Required = "required",
    }
}

section! {
    /// A certificate chain and its key.
    pub struct CertificateFiles {
        /// The chain, leaf first (PEM).
        cert: Spanned<PathBuf>,
        /// The private key (PEM).
        key: Spanned<PathBuf>,
    }
}

section! {
    /// TLS towards a cluster.
    pub struct ClusterTls {
        /// The certificate authorities that the endpoints' certificates must come from (PEM).
        ca: Spanned<PathBuf>,
        /// The endpoints' certificates that the authorities have revoked: a list of each authority that their chains have,
        /// all in one file (PEM). Once a list is out of date, whoever it is about is refused.
        crl: Option<Spanned<PathBuf>>,
        /// The certificate chain that Weir shows, leaf first (PEM).
        cert: Option<Spanned<PathBuf>>,
        /// Its private key (PEM).
        key: Option<Spanned<PathBuf>>,
        /// The server name to send, and to find in the endpoint's certificate unless `verify_identity` is set.
        /// The default is the endpoint's DNS name.
        sni: Option<Spanned<String>>,
        /// The URI identities (as in `spiffe://mesh.internal/api`) of which the endpoint's certificate must carry one.
        verify_identity: Vec<Spanned<String>>,
    }
}
