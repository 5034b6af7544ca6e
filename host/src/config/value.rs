//! The values that fields hold: durations, sizes, addresses, paths, lists.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::config::problem::Place;
use crate::config::section::{Context, Definitions, Read, text};
use crate::config::yaml::{Entry, Node, Value};

/// A value that remembers where it stood, for problems that show only later. Two are equal when their values are.
#[derive(Debug, Clone)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stood.
    pub place: Place,
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Spanned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Read> Read for Spanned<T> {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        T::read(node, cx).map(|value| Self { value, place: cx.place(node.at) })
    }

    fn schema(definitions: &mut Definitions) -> Json {
        T::schema(definitions)
    }

    fn to_json(&self) -> Json {
        self.value.to_json()
    }

    fn absent() -> Option<Self> {
        T::absent().map(|value| Self { value, place: Place::default() })
    }

    fn takes_null() -> bool {
        T::takes_null()
    }

    fn recovered() -> Option<Self> {
        T::recovered().map(|value| Self { value, place: Place::default() })
    }
}

impl<T: Read> Read for Option<T> {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        T::read(node, cx).map(Some)
    }

    fn schema(definitions: &mut Definitions) -> Json {
        T::schema(definitions)
    }

    fn to_json(&self) -> Json {
        self.as_ref().map_or(Json::Null, Read::to_json)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn takes_null() -> bool {
        T::takes_null()
    }

    fn recovered() -> Option<Self> {
        T::recovered().map(Some)
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let Value::Sequence(items) = &node.value else {
            cx.problem(node.at, format!("a list is expected here, not {}", node.kind()));
            return None;
        };
        let read = |(index, item)| cx.below(&format!("[{index}]"), |cx| T::read(item, cx));
        Some(items.iter().enumerate().filter_map(read).collect())
    }

    fn schema(definitions: &mut Definitions) -> Json {
        json!({ "type": "array", "items": T::schema(definitions) })
    }

    fn to_json(&self) -> Json {
        self.iter().map(Read::to_json).collect()
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }
}

impl<T: Read> Read for BTreeMap<String, T> {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let Value::Mapping(entries) = &node.value else {
            cx.problem(node.at, format!("a mapping is expected here, not {}", node.kind()));
            return None;
        };
        let read = |entry: &Entry| {
            let value = cx.below(&entry.key, |cx| T::read(&entry.value, cx))?;
            Some((entry.key.clone(), value))
        };
        Some(entries.iter().filter_map(read).collect())
    }

    fn schema(definitions: &mut Definitions) -> Json {
        json!({ "type": "object", "additionalProperties": T::schema(definitions) })
    }

    fn to_json(&self) -> Json {
        self.iter().map(|(key, value)| (key.clone(), value.to_json())).collect()
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }
}

impl Read for String {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        text(node, cx).map(str::to_owned)
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({ "type": "string" })
    }

    fn to_json(&self) -> Json {
        self.as_str().into()
    }

    fn recovered() -> Option<Self> {
        Some(Self::new())
    }
}

/// A text that nobody who looks on is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Read for Secret {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        text(node, cx).map(|text| Self(text.to_owned()))
    }

    fn schema(definitions: &mut Definitions) -> Json {
        String::schema(definitions)
    }

    fn to_json(&self) -> Json {
        "(hidden)".into()
    }
}

impl Read for bool {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let word = text(node, cx)?;
        let value = match word {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => None,
        };
        value.or_else(|| {
            cx.problem(node.at, format!("`{word}` is neither; write `true` or `false`"));
            None
        })
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({ "type": "boolean" })
    }

    fn to_json(&self) -> Json {
        (*self).into()
    }
}

/// Implements [`Read`] for a type by parsing a scalar, with the words that say what is expected.
macro_rules! scalar {
    ($($ty:ty, $schema:tt, $recovered:expr, $parse:expr, $show:expr, $expected:literal;)+) => {
        $(impl Read for $ty {
            fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
                let word = text(node, cx)?;
                let parse: fn(&str) -> Option<$ty> = $parse;
                parse(word).or_else(|| {
                    cx.problem(node.at, format!(concat!("`{}` is not ", $expected), word));
                    None
                })
            }

            fn schema(_: &mut Definitions) -> Json {
                json!($schema)
            }

            fn to_json(&self) -> Json {
                let show: fn(&$ty) -> Json = $show;
                show(self)
            }

            fn recovered() -> Option<Self> {
                Some($recovered)
            }
        })+
    };
}

scalar! {
    u16, { "type": "integer", "minimum": 0, "maximum": 65535 }, 0, |word| word.parse().ok(), |value| (*value).into(),
        "a whole number from 0 to 65535";
    NonZeroU16, { "type": "integer", "minimum": 1, "maximum": 65535 }, Self::MIN, |word| word.parse().ok(),
        |value| value.get().into(), "a whole number from 1 to 65535";
    u32, { "type": "integer", "minimum": 0 }, 0, |word| word.parse().ok(), |value| (*value).into(), "a whole number";
    Duration, { "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" }, Duration::ZERO, parse_duration, show_duration,
        "a duration; write it as in `250ms`, `5s`, `1m` or `1h`";
    Size, { "type": ["string", "integer"], "pattern": "^[0-9]+(B|KiB|MiB|GiB)?$" }, Size(0), parse_size, show_size,
        "a size; write it as in `64KiB`, `16MiB` or `1GiB`";
    Percent, { "type": "string", "pattern": "^[0-9]+%$" }, Percent(100),
        |word| word.strip_suffix('%')?.parse().ok().filter(|share| *share <= 100).map(Percent),
        |value| format!("{}%", value.0).into(), "a share; write it as in `95%`";
    SocketAddr, { "type": "string" }, SocketAddr::from(([0; 4], 0)), |word| word.parse().ok(),
        |value| value.to_string().into(),
        "an address; write it as in `127.0.0.1:8080` or `[::1]:8080`";
    IpNet, { "type": "string" }, IpNet { address: [0; 4].into(), prefix: 32 }, IpNet::parse,
        |value| format!("{}/{}", value.address, value.prefix).into(),
        "an address or a network; write it as in `10.0.0.0/8` or `::1`";
}

/// In the largest unit that leaves no rest.
fn show_duration(value: &Duration) -> Json {
    let millis = value.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = units.into_iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or((1, "ms"));
    format!("{}{name}", millis / unit).into()
}

/// In the largest unit that leaves no rest.
fn show_size(value: &Size) -> Json {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(unit, _)| value.0 > 0 && value.0.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or((1, "B"));
    format!("{}{name}", value.0 / unit).into()
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub usize);

/// A share, in hundredths: from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u8);

fn parse_duration(word: &str) -> Option<Duration> {
    let split = word.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = word.split_at(split);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

fn parse_size(word: &str) -> Option<Size> {
    let split = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let (number, unit) = word.split_at(split);
    let number: usize = number.parse().ok()?;
    let unit = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit).map(Size)
}

/// An address or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpNet {
    address: IpAddr,
    prefix: u8,
}

impl IpNet {
    fn parse(word: &str) -> Option<Self> {
        let (address, prefix) = match word.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (word, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(bits), |prefix| prefix.parse().ok())?;
        (prefix <= bits).then_some(Self { address, prefix })
    }

    /// Whether the network holds `other`. An IPv4 address that is mapped into IPv6 counts as IPv4.
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(other)) => {
                same_prefix(net.to_bits().into(), other.to_bits().into(), 32 - self.prefix)
            }
            (IpAddr::V6(net), IpAddr::V6(other)) => {
                same_prefix(net.to_bits(), other.to_bits(), 128 - self.prefix)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl From<([u8; 4], u8)> for IpNet {
    /// An IPv4 network; the prefix is cut to 32 bits.
    fn from((address, prefix): ([u8; 4], u8)) -> Self {
        Self { address: address.into(), prefix: prefix.min(32) }
    }
}

fn same_prefix(a: u128, b: u128, host_bits: u8) -> bool {
    (a ^ b).checked_shr(u32::from(host_bits)).unwrap_or(0) == 0
}

impl Read for PathBuf {
    fn read(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        text(node, cx).map(|path| cx.resolve(path))
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({ "type": "string", "format": "path" })
    }

    fn to_json(&self) -> Json {
        self.display().to_string().into()
    }

    fn recovered() -> Option<Self> {
        Some(Self::new())
    }
}

/// Anything: what a plugin's own configuration may be.
impl Read for Json {
    fn read(node: &Node, _: &mut Context<'_>) -> Option<Self> {
        Some(node.to_json())
    }

    fn schema(_: &mut Definitions) -> Json {
        json!({})
    }

    fn to_json(&self) -> Json {
        without_secrets(self)
    }
}

/// A plugin's configuration for those who look on: what is called a secret is not shown.
fn without_secrets(value: &Json) -> Json {
    const SECRET: [&str; 6] = ["secret", "password", "token", "private", "api_key", "credential"];
    match value {
        Json::Object(fields) => {
            let hide = |name: &str| SECRET.iter().any(|word| name.to_ascii_lowercase().contains(word));
            let field = |(name, value): (&String, &Json)| {
                (name.clone(), if hide(name) { "(hidden)".into() } else { without_secrets(value) })
            };
            fields.iter().map(field).collect()
        }
        Json::Array(items) => items.iter().map(without_secrets).collect(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_need_a_unit_that_is_known() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1m"), Some(Duration::from_secs(60)));
        assert_eq!(parse_duration("5"), None);
        assert_eq!(parse_duration("-5s"), None);
        assert_eq!(parse_duration("18446744073709551615h"), None);
        assert_eq!(parse_size("64KiB"), Some(Size(65536)));
        assert_eq!(parse_size("1GiB"), Some(Size(1 << 30)));
        assert_eq!(parse_size("12"), Some(Size(12)));
        assert_eq!(parse_size("64KB"), None);
    }

    #[test]
    fn what_is_in_force_is_shown_as_it_would_be_written_and_without_secrets() {
        assert_eq!(show_duration(&Duration::from_secs(90)), "90s");
        assert_eq!(show_duration(&Duration::from_secs(7200)), "2h");
        assert_eq!(show_duration(&Duration::ZERO), "0ms");
        assert_eq!(show_size(&Size(61440)), "60KiB");
        let config = json!({ "a": { "Api_Key": "x", "b": [{ "password": 1 }] } });
        assert_eq!(
            config.to_json(),
            json!({ "a": { "Api_Key": "(hidden)", "b": [{ "password": "(hidden)" }] } })
        );
    }

    #[test]
    fn networks_hold_their_addresses_in_either_form() {
        let net = IpNet::parse("10.0.0.0/8").expect("a network");
        assert!(net.contains("10.9.8.7".parse().expect("an address")));
        assert!(net.contains("::ffff:10.9.8.7".parse().expect("an address")));
        assert!(!net.contains("11.0.0.1".parse().expect("an address")));
        assert!(!net.contains("::1".parse().expect("an address")));
        assert!(IpNet::parse("0.0.0.0/0").expect("all").contains("8.8.8.8".parse().expect("an address")));
        assert!(IpNet::parse("::1").expect("one").contains("::1".parse().expect("an address")));
        assert_eq!(IpNet::parse("10.0.0.0/33"), None);
    }
}
