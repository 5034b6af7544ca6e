//! `rate-limit`: how often anybody may ask, by any property of the request.
//!
//! A limit has a bucket of tokens for each value of its properties, and each request takes one. The buckets lie in
//! shared data, so that all workers take from the same ones, and a new version of the plugin goes on with them.

mod bucket;
mod limit;
mod store;

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use filter_parts::address::{Network, client, parse};
use filter_parts::text::path_and_query;
use weir_sdk::metrics::Counter;
use weir_sdk::prelude::*;
use weir_sdk::properties;

use crate::bucket::Taken;
use crate::limit::{By, Limit, LimitConfig};
use crate::store::Store;

/// The filter's configuration.
#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The limits. A request must be within all of them.
    limits: Vec<LimitConfig>,
    /// Whether responses tell what is left.
    #[serde(default)]
    headers: bool,
    /// The status of what is refused.
    #[serde(default = "too_many")]
    status: u16,
    /// The most values whose buckets are kept, for each limit.
    #[serde(default = "many")]
    max_keys: u32,
    /// How many bits of an IPv6 address count: a client has a network of them.
    #[serde(default = "subnet")]
    ipv6_prefix: u8,
    /// The proxies that are believed when they say, in `x-forwarded-for`, where a request came from.
    #[serde(default)]
    trusted_proxies: Vec<Network>,
}

fn too_many() -> u16 {
    429
}

fn many() -> u32 {
    8192
}

fn subnet() -> u8 {
    64
}

/// What all limits are asked with.
#[derive(Debug)]
struct Limiter {
    limits: Vec<Limit>,
    headers: bool,
    status: u16,
    ipv6_prefix: u8,
    trusted: Vec<Network>,
    store: Store,
}

/// The filter.
#[derive(Debug)]
struct RateLimit {
    limiter: Limiter,
    allowed: Counter,
    limited: Counter,
}

/// What is left to the one who asked, of the limit of which least is left.
#[derive(Debug, Clone, Copy)]
struct Left {
    limit: u64,
    taken: Taken,
}

#[weir_sdk::http_filter]
impl HttpFilter for RateLimit {
    type Config = Config;
    type Stream = Option<Left>;

    fn new(config: Config) -> Result<Self> {
        Ok(Self {
            limiter: Limiter::compile(config)?,
            allowed: Counter::define("rate_limit_allowed")?,
            limited: Counter::define("rate_limit_limited")?,
        })
    }

    fn on_request_headers(&self, request: &mut Request, left: &mut Option<Left>) -> Result<Action> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let refused = self.limiter.ask(request, now, left)?;
        let Some((name, wait)) = refused else {
            self.allowed.increment();
            return Ok(Action::Continue);
        };
        self.limited.increment();
        let reply = Reply::new(self.limiter.status)
            .header("retry-after", seconds(wait).to_string())
            .body("too many requests\n")
            .details(format!("limited by {name}"))
            .grpc_status(RESOURCE_EXHAUSTED);
        Ok(Action::Reply(reply))
    }

    fn on_response_headers(&self, response: &mut Response, left: &mut Option<Left>) -> Result<Action> {
        if let Some(left) = left.filter(|_| self.limiter.headers) {
            response.set_header("x-ratelimit-limit", left.limit.to_string())?;
            response.set_header("x-ratelimit-remaining", left.taken.left.to_string())?;
            response.set_header("x-ratelimit-reset", seconds(left.taken.full_in).to_string())?;
        }
        Ok(Action::Continue)
    }
}

/// gRPC's status for what there is too much of.
const RESOURCE_EXHAUSTED: u32 = 8;

/// Nanoseconds as seconds, none too few.
fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000)
}

impl Limiter {
    fn compile(config: Config) -> Result<Self> {
        if config.limits.is_empty() {
            return Err(Error::new("`limits` is empty, so that nothing would be limited; add a limit"));
        }
        if !(400..=599).contains(&config.status) {
            return Err(Error::new(format!(
                "`status: {}` tells nobody to wait; use 400 to 599",
                config.status
            )));
        }
        if !(1..=128).contains(&config.ipv6_prefix) {
            return Err(Error::new("`ipv6_prefix` is a number of bits, 1 to 128"));
        }
        let mut limits: Vec<Limit> = Vec::new();
        for (at, limit) in config.limits.into_iter().enumerate() {
            let limit = limit.compile(at)?;
            if limits.iter().any(|other| other.name == limit.name) {
                return Err(Error::new(format!(
                    "two limits are called `{}`; their buckets would be the same",
                    limit.name
                )));
            }
            limits.push(limit);
        }
        Ok(Self {
            limits,
            headers: config.headers,
            status: config.status,
            ipv6_prefix: config.ipv6_prefix,
            trusted: config.trusted_proxies,
            store: Store::new(config.max_keys)?,
        })
    }

    /// Takes a token from each limit that is for the request, up to the first that has none: then its name, and for
    /// how many nanoseconds it has none.
    fn ask(&self, request: &Request, now: u64, left: &mut Option<Left>) -> Result<Option<(&str, u64)>> {
        let (mut method, mut target) = (None, None);
        for limit in &self.limits {
            if limit.asks_for_method() && method.is_none() {
                method = Some(request.method()?);
            }
            if limit.asks_for_path() && target.is_none() {
                target = Some(request.path()?);
            }
            let path = target.as_deref().map(|target| path_and_query(target).0);
            if !limit.is_for(method.as_deref().unwrap_or_default(), path.unwrap_or_default()) {
                continue;
            }
            let values = limit.by.iter().map(|by| self.value(by, request)).collect::<Result<Vec<_>>>()?;
            let taken = self.store.take(limit, &values, now)?;
            if left.is_none_or(|least| taken.left < least.taken.left || taken.wait > 0) {
                *left = Some(Left { limit: limit.rate.burst(), taken });
            }
            if taken.wait > 0 {
                return Ok(Some((&limit.name, taken.wait)));
            }
        }
        Ok(None)
    }

    /// The value of a property; one that is not there is empty. So all who have none share a bucket.
    fn value(&self, by: &By, request: &Request) -> Result<Vec<u8>> {
        match by {
            By::Client => {
                let peer = properties::source_address()?.as_deref().and_then(parse);
                let Some(peer) = peer.filter(|_| !self.trusted.is_empty()) else {
                    return Ok(self.network(peer));
                };
                let headers = request.headers()?;
                let named = headers
                    .get_all("x-forwarded-for")
                    .map(|value| String::from_utf8_lossy(value).into_owned());
                let named: Vec<String> = named.collect();
                Ok(self.network(client(peer, named.iter().map(String::as_str), &self.trusted)))
            }
            By::Property(path) => {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                Ok(properties::get(&path)?.unwrap_or_default())
            }
        }
    }

    /// What of an address counts.
    fn network(&self, address: Option<IpAddr>) -> Vec<u8> {
        match address {
            Some(IpAddr::V4(v4)) => v4.octets().to_vec(),
            Some(v6 @ IpAddr::V6(_)) => match filter_parts::address::masked(v6, self.ipv6_prefix) {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            },
            None => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
