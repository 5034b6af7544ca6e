//! Which of the headers that a proxy treats in a way of their own a message has, found by one look at each name: to ask a
//! map for each of them is a hash each, and most messages have none.

use http::HeaderMap;

/// A set of such headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks(u16);

impl Marks {
    /// `Connection`
    pub const CONNECTION: Self = Self(1);
    /// `Keep-Alive`
    pub const KEEP_ALIVE: Self = Self(1 << 1);
    /// `Proxy-Connection`
    pub const PROXY_CONNECTION: Self = Self(1 << 2);
    /// `Transfer-Encoding`
    pub const TRANSFER_ENCODING: Self = Self(1 << 3);
    /// `Upgrade`
    pub const UPGRADE: Self = Self(1 << 4);
    /// `TE`
    pub const TE: Self = Self(1 << 5);
    /// `HTTP2-Settings`
    pub const HTTP2_SETTINGS: Self = Self(1 << 6);
    /// `Expect`
    pub const EXPECT: Self = Self(1 << 7);
    /// `Content-Length`
    pub const CONTENT_LENGTH: Self = Self(1 << 8);
    /// `X-Forwarded-For` and the others by which a proxy tells who its client is
    pub const FORWARDED: Self = Self(1 << 9);
    /// `X-Forwarded-Client-Cert`
    pub const CLIENT_CERT: Self = Self(1 << 10);
    /// `X-Request-Id`
    pub const REQUEST_ID: Self = Self(1 << 11);

    /// Those of a message.
    pub fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |marks, name| marks | Self::of_name(name.as_str()).0))
    }

    /// The one with a name, in lower case.
    fn of_name(name: &str) -> Self {
        match name {
            "connection" => Self::CONNECTION,
            "keep-alive" => Self::KEEP_ALIVE,
            "proxy-connection" => Self::PROXY_CONNECTION,
            "transfer-encoding" => Self::TRANSFER_ENCODING,
            "upgrade" => Self::UPGRADE,
            "te" => Self::TE,
            "http2-settings" => Self::HTTP2_SETTINGS,
            "expect" => Self::EXPECT,
            "content-length" => Self::CONTENT_LENGTH,
            "forwarded" | "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host"
            | "x-forwarded-port" => Self::FORWARDED,
            "x-forwarded-client-cert" => Self::CLIENT_CERT,
            "x-request-id" => Self::REQUEST_ID,
            _ => Self(0),
        }
    }

    /// Whether one of `others` is there.
    pub const fn has(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// These and others.
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_message_is_marked_by_what_it_has_and_by_nothing_else() {
        let marks = |names: &[&'static str]| {
            let value = HeaderValue::from_static("x");
            Marks::of(&names.iter().map(|name| (HeaderName::from_static(name), value.clone())).collect())
        };
        assert_eq!(marks(&[]), Marks::default());
        assert_eq!(marks(&["accept", "x-forwarded", "te2"]), Marks::default());
        let some = marks(&["te", "accept", "x-forwarded-port"]);
        assert_eq!(some, Marks::TE.and(Marks::FORWARDED));
        assert!(some.has(Marks::TE) && !some.has(Marks::UPGRADE.and(Marks::CONNECTION)));
    }
}
