//! Who is calling.

use std::fmt;

/// A SPIFFE identity, `spiffe://TRUST-DOMAIN/PATH` (SPIFFE-ID section 2). There is none that is not well-formed.
/// ```
/// use weir_sdk::SpiffeId;
///
/// let id = SpiffeId::parse("spiffe://prod.example/ns/shop/sa/cart").expect("it is one");
/// assert_eq!((id.trust_domain(), id.path()), ("prod.example", "/ns/shop/sa/cart"));
/// assert_eq!(SpiffeId::parse("spiffe://prod.example/../admin"), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    uri: String,
    /// Where the path begins: at a slash, or at the end.
    path: usize,
}

impl SpiffeId {
    /// Reads one; `None` when it is none.
    #[must_use]
    pub fn parse(uri: impl Into<String>) -> Option<Self> {
        let uri = uri.into();
        let rest = uri.strip_prefix(SCHEME)?;
        let domain = rest.split('/').next().unwrap_or_default();
        let path = SCHEME.len() + domain.len();
        let in_domain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
        let in_path = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        let segment =
            |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(in_path);
        let segments = rest.get(domain.len()..)?;
        let good_path = segments.is_empty() || segments.split('/').skip(1).all(segment);
        let good_domain = !domain.is_empty() && domain.len() <= 255 && domain.chars().all(in_domain);
        (good_domain && good_path && uri.len() <= 2048).then_some(Self { uri, path })
    }

    /// The whole.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.uri.get(SCHEME.len()..self.path).unwrap_or_default()
    }

    /// The path, which begins with a slash; empty for the trust domain itself.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.get(self.path..).unwrap_or_default()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

const SCHEME: &str = "spiffe://";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_well_formed_or_none() {
        let id = SpiffeId::parse("spiffe://mesh.internal/ns/prod/orders").expect("an identity");
        assert_eq!((id.trust_domain(), id.path()), ("mesh.internal", "/ns/prod/orders"));
        assert_eq!(SpiffeId::parse("spiffe://mesh.internal").expect("a trust domain").path(), "");
        for none in [
            "https://a/b",
            "spiffe://",
            "spiffe:///a",
            "spiffe://A/b",
            "spiffe://a/",
            "spiffe://a//b",
            "spiffe://a/../b",
            "spiffe://a/b?c",
            "spiffe://a:1/b",
        ] {
            assert_eq!(SpiffeId::parse(none), None, "{none}");
        }
    }
}
