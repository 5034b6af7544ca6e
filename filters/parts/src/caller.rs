//! Callers, as rules name them.

/// Whom a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Everybody.
    Everybody,
    /// Whoever has an identity.
    Authenticated,
    /// Who has this identity.
    Exact(String),
    /// Whoever's identity is below this one, which ends with a slash.
    Below(String),
}

impl Caller {
    /// Reads one: `*`, `authenticated`, an identity, or `identity/*` for all below it.
    #[must_use]
    pub fn parse(word: String) -> Self {
        match word.as_str() {
            "*" => Self::Everybody,
            "authenticated" => Self::Authenticated,
            _ => match word.strip_suffix('*') {
                Some(prefix) if prefix.ends_with('/') => Self::Below(prefix.to_owned()),
                Some(_) | None => Self::Exact(word),
            },
        }
    }

    /// Whether it is for a caller of this identity.
    #[must_use]
    pub fn is(&self, identity: Option<&str>) -> bool {
        match (self, identity) {
            (Self::Everybody, _) | (Self::Authenticated, Some(_)) => true,
            (Self::Exact(wanted), Some(identity)) => wanted == identity,
            (Self::Below(prefix), Some(identity)) => {
                identity.len() > prefix.len() && identity.starts_with(prefix)
            }
            (Self::Authenticated | Self::Exact(_) | Self::Below(_), None) => false,
        }
    }
}
