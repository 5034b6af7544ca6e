//! The routes of a listener, compiled: the first that matches, in the order of the configuration, without looking
//! at all of them.
//!
//! Routes are grouped by host, and within a host by path: exact paths and prefixes are found by hash, regular
//! expressions are tried one by one. Of what matches, the lowest number wins, so that the order of the file is
//! the only order there is.

mod requests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};
use rustc_hash::FxHashMap;

use crate::config::matcher::{HeaderMatch, HostPattern, PathMatch};
use crate::config::route::{Action as ActionConfig, Redirect, Route as RouteConfig};
use crate::http::message::Request;
use crate::plugin::stream::RouteFacts;

pub use requests::Requests;

/// The routes of a listener.
#[derive(Debug)]
pub struct RouteTable {
    routes: Vec<Arc<Route>>,
    // Only the configuration puts keys in, so that nobody can make them collide.
    exact: FxHashMap<String, PathIndex>,
    /// By suffix, which begins with a dot.
    suffix: FxHashMap<String, PathIndex>,
    any: PathIndex,
    by_headers: bool,
}

/// A route.
#[derive(Debug)]
pub struct Route {
    /// Its name, or, without one, its place in the list.
    pub name: Arc<str>,
    /// What becomes of the request.
    pub action: Action,
    /// How long the response may take.
    pub timeout: Option<Duration>,
    /// The number of the chain that runs.
    pub chain: usize,
    /// What is counted.
    pub requests: Requests,
    /// What it says of itself to plugins.
    pub facts: Arc<RouteFacts>,
    path: PathMatch,
    methods: Vec<Method>,
    headers: Vec<(HeaderName, HeaderMatch)>,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Action {
    /// It is forwarded.
    Forward {
        /// The clusters, by their number in the snapshot, with the sums of the weights up to and with each.
        clusters: Vec<(usize, u32)>,
        /// What replaces the matched part of the path.
        rewrite: Option<String>,
    },
    /// It is redirected.
    Redirect(Redirect),
    /// It is answered.
    Respond {
        /// The status.
        status: StatusCode,
        /// The body.
        body: bytes::Bytes,
        /// The headers.
        headers: Vec<(HeaderName, HeaderValue)>,
    },
}

#[derive(Debug, Default)]
struct PathIndex {
    exact: FxHashMap<String, Vec<usize>>,
    prefix: FxHashMap<String, Vec<usize>>,
    /// The lengths of the prefixes, each once.
    lengths: Vec<usize>,
    regex: Vec<usize>,
}

impl RouteTable {
    /// Compiles routes. `chain` tells the number of a route's chain, `cluster` that of a cluster, `requests` what
    /// the requests of a route are counted in, by its name, and `facts` what it says of itself.
    pub fn new(
        routes: &[RouteConfig],
        mut chain: impl FnMut(&RouteConfig) -> usize,
        cluster: impl Fn(&str) -> Option<usize>,
        requests: impl Fn(&str) -> Requests,
        facts: impl Fn(&RouteConfig) -> RouteFacts,
    ) -> Self {
        let mut table = Self {
            routes: Vec::new(),
            exact: FxHashMap::default(),
            suffix: FxHashMap::default(),
            any: PathIndex::default(),
            by_headers: routes.iter().any(|route| !route.headers.is_empty()),
        };
        for (number, route) in routes.iter().enumerate() {
            let index = match &route.host {
                Some(HostPattern::Exact(host)) => table.exact.entry(host.clone()).or_default(),
                Some(HostPattern::Suffix(suffix)) => table.suffix.entry(suffix.clone()).or_default(),
                Some(HostPattern::Any) | None => &mut table.any,
            };
            index.insert(&route.path, number);
            let chain = chain(route);
            let name = route.name.clone().unwrap_or_else(|| format!("routes[{number}]"));
            let told = (requests(&name), facts(route));
            table.routes.push(Arc::new(Route::new(route, name.into(), chain, told, &cluster)));
        }
        table
    }

    /// The first route that matches.
    pub fn find(&self, request: &Request) -> Option<&Arc<Route>> {
        let host = lower(request.host());
        let path = request.url_path();
        let mut best = None;
        if let Some(index) = self.exact.get(&*host) {
            self.first(index, path, request, &mut best);
        }
        if !self.suffix.is_empty() {
            for (at, _) in host.match_indices('.') {
                // `*.example.com` stands for names below example.com, so something comes before the dot.
                if let Some(index) =
                    host.get(at..).filter(|_| at > 0).and_then(|suffix| self.suffix.get(suffix))
                {
                    self.first(index, path, request, &mut best);
                }
            }
        }
        self.first(&self.any, path, request, &mut best);
        best.and_then(|number| self.routes.get(number))
    }

    /// Lowers `best` to the lowest number in `index` that matches.
    fn first(&self, index: &PathIndex, path: &str, request: &Request, best: &mut Option<usize>) {
        let mut consider = |numbers: &[usize]| {
            for &number in numbers {
                if best.is_some_and(|best| best < number) {
                    return;
                }
                if self.routes.get(number).is_some_and(|route| route.matches(path, request)) {
                    *best = Some(number);
                    return;
                }
            }
        };
        if let Some(numbers) = index.exact.get(path) {
            consider(numbers);
        }
        for &length in &index.lengths {
            // A prefix that ends inside a character is none of this path.
            if let Some(numbers) = path.get(..length).and_then(|prefix| index.prefix.get(prefix)) {
                consider(numbers);
            }
        }
        consider(&index.regex);
    }

    /// Whether any route looks at headers.
    pub fn is_by_headers(&self) -> bool {
        self.by_headers
    }

    /// All routes, in order.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }
}

/// A host in lower case, as most are already.
fn lower(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

impl PathIndex {
    fn insert(&mut self, path: &PathMatch, number: usize) {
        match path {
            PathMatch::Exact(path) => self.exact.entry(path.clone()).or_default().push(number),
            PathMatch::Prefix(prefix) => {
                if !self.lengths.contains(&prefix.len()) {
                    self.lengths.push(prefix.len());
                }
                self.prefix.entry(prefix.clone()).or_default().push(number);
            }
            PathMatch::Regex(_) => self.regex.push(number),
        }
    }
}

impl Route {
    fn new(
        config: &RouteConfig,
        name: Arc<str>,
        chain: usize,
        (requests, facts): (Requests, RouteFacts),
        cluster: impl Fn(&str) -> Option<usize>,
    ) -> Self {
        let action = match &config.action {
            ActionConfig::Forward { clusters, prefix_rewrite } => {
                let mut sum = 0_u32;
                let weighted = clusters.iter().filter_map(|target| {
                    sum = sum.saturating_add(target.weight);
                    Some((cluster(&target.name)?, sum))
                });
                Action::Forward { clusters: weighted.collect(), rewrite: prefix_rewrite.clone() }
            }
            ActionConfig::Redirect(redirect) => Action::Redirect(redirect.clone()),
            ActionConfig::Respond { status, body, headers } => {
                Action::Respond { status: *status, body: body.clone().into(), headers: headers.clone() }
            }
        };
        Self {
            facts: Arc::new(RouteFacts { name: Arc::clone(&name), ..facts }),
            name,
            action,
            requests,
            timeout: config.timeout,
            chain,
            path: config.path.clone(),
            methods: config.methods.clone(),
            headers: config.headers.clone(),
        }
    }

    /// Whether everything but the host matches. The index has looked at exact paths and prefixes already.
    fn matches(&self, path: &str, request: &Request) -> bool {
        let path = match &self.path {
            PathMatch::Exact(_) | PathMatch::Prefix(_) => true,
            PathMatch::Regex(pattern) => pattern.0.is_match(path),
        };
        path && (self.methods.is_empty() || self.methods.contains(&request.method))
            && self.headers.iter().all(|(name, rule)| header_matches(&request.headers, name, rule))
    }

    /// The path that is forwarded, when the route rewrites it: the matched part replaced, the query kept.
    pub fn rewritten(&self, target: &str) -> Option<String> {
        let Action::Forward { rewrite: Some(rewrite), .. } = &self.action else { return None };
        let rest = match &self.path {
            PathMatch::Prefix(prefix) => target.strip_prefix(prefix.as_str())?,
            PathMatch::Exact(path) => target.strip_prefix(path.as_str())?,
            PathMatch::Regex(_) => return None,
        };
        let path = format!("{rewrite}{rest}");
        Some(if path.starts_with('/') { path } else { format!("/{path}") })
    }
}

impl Action {
    /// The number of the cluster to forward to, where there is no choice.
    pub fn planned(&self) -> Option<usize> {
        match self {
            Self::Forward { clusters, .. } => match clusters.as_slice() {
                [(only, _)] => Some(*only),
                _ => None,
            },
            Self::Redirect(_) | Self::Respond { .. } => None,
        }
    }

    /// The number of the cluster to forward to, by weight.
    pub fn pick(&self) -> Option<usize> {
        match self {
            Self::Forward { clusters, .. } => match clusters.as_slice() {
                [(only, _)] => Some(*only),
                clusters => {
                    let &(_, total) = clusters.last()?;
                    let drawn = fastrand::u32(..total.max(1));
                    clusters.iter().find(|(_, sum)| drawn < *sum).map(|(cluster, _)| *cluster)
                }
            },
            Self::Redirect(_) | Self::Respond { .. } => None,
        }
    }
}

fn header_matches(headers: &HeaderMap, name: &HeaderName, rule: &HeaderMatch) -> bool {
    let any = |test: &dyn Fn(&str) -> bool| {
        headers.get_all(name).iter().any(|value| value.to_str().is_ok_and(test))
    };
    match rule {
        HeaderMatch::Exact(wanted) => any(&|value| value == wanted),
        HeaderMatch::Prefix(prefix) => any(&|value| value.starts_with(prefix.as_str())),
        HeaderMatch::Regex(pattern) => any(&|value| pattern.0.is_match(value)),
        HeaderMatch::Present(present) => headers.contains_key(name) == *present,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::config::listener::Service;
    use crate::http::message::{Scheme, Version};
    use crate::telemetry::metrics::Registry;

    fn table(routes: &str) -> RouteTable {
        let text = format!(
            "listeners: [{{ name: l, address: \"127.0.0.1:0\", http: {{ routes: [{routes}] }} }}]\n\
             clusters: [{{ name: a, endpoints: [] }}, {{ name: b, endpoints: [] }}]"
        );
        let config = Config::parse(Path::new("t.yaml"), &text).expect("a configuration");
        let Service::Http(http) = &config.sections.listeners[0].service else { panic!("HTTP") };
        RouteTable::new(
            &http.routes,
            |_| 0,
            |name| ["a", "b"].iter().position(|known| *known == name),
            |name| Requests::new(&Registry::new(1), "l", name),
            |_| RouteFacts::default(),
        )
    }

    fn request(method: &str, host: &'static str, target: &'static str) -> Request {
        Request {
            method: method.parse().expect("a method"),
            scheme: Scheme::Http,
            authority: HeaderValue::from_static(host),
            path: HeaderValue::from_static(target),
            version: Version::Http11,
            headers: HeaderMap::new(),
        }
    }

    fn found(table: &RouteTable, request: &Request) -> Option<String> {
        table.find(request).map(|route| route.name.to_string())
    }

    #[test]
    fn the_first_route_in_the_file_wins_however_it_is_found() {
        let table = table(
            r#"{ name: regex, match: { path_regex: "/r[0-9]+" }, cluster: a },
               { name: exact, match: { path: /v1/x }, cluster: a },
               { name: v1, match: { path_prefix: /v1 }, cluster: a },
               { name: v1-long, match: { path_prefix: /v1/long }, cluster: a },
               { name: r, match: { path_prefix: /r }, cluster: a },
               { name: rest, cluster: a }"#,
        );
        let get = |target| found(&table, &request("GET", "h", target)).expect("the last route takes all");
        assert_eq!(get("/r12"), "regex");
        assert_eq!(get("/r12x"), "r");
        assert_eq!(get("/v1/x?q=1"), "exact");
        assert_eq!(get("/v1/long/y"), "v1");
        assert_eq!(get("/v2"), "rest");
    }

    #[test]
    fn hosts_match_exactly_or_by_suffix_in_any_case_and_without_port() {
        let table = table(
            r#"{ name: sub, match: { host: "*.example.com" }, cluster: a },
               { name: exact, match: { host: "api.example.org" }, cluster: a },
               { name: deep, match: { host: "*.b.example.com" }, cluster: a }"#,
        );
        let host = |host| found(&table, &request("GET", host, "/"));
        assert_eq!(host("a.example.com").as_deref(), Some("sub"));
        assert_eq!(host("A.B.Example.COM:8443").as_deref(), Some("sub"), "the first in the file");
        assert_eq!(host("api.example.org").as_deref(), Some("exact"));
        assert_eq!(host("example.com"), None, "a suffix stands for names below it");
        assert_eq!(host("x.api.example.org"), None);
    }

    #[test]
    fn methods_and_headers_narrow_a_route() {
        let table = table(
            r#"{ name: post, match: { methods: [POST, PUT] }, cluster: a },
               { name: staging, match: { headers: { x-env: staging, x-debug: { present: false } } }, cluster: a },
               { name: beta, match: { headers: { cookie: { regex: ".*beta=1.*" } } }, cluster: a }"#,
        );
        assert_eq!(found(&table, &request("PUT", "h", "/")).as_deref(), Some("post"));
        let mut get = request("GET", "h", "/");
        assert_eq!(found(&table, &get), None);
        get.headers.append("x-env", HeaderValue::from_static("other"));
        get.headers.append("x-env", HeaderValue::from_static("staging"));
        assert_eq!(found(&table, &get).as_deref(), Some("staging"));
        get.headers.insert("x-debug", HeaderValue::from_static("1"));
        assert_eq!(found(&table, &get), None);
        get.headers.insert("cookie", HeaderValue::from_static("a=1; beta=1"));
        assert_eq!(found(&table, &get).as_deref(), Some("beta"));
    }

    #[test]
    fn a_prefix_is_rewritten_and_the_query_stays() {
        let table = table("{ match: { path_prefix: /v1/ }, cluster: a, prefix_rewrite: / }");
        let route = table.find(&request("GET", "h", "/v1/users?x=/v1/")).expect("it matches");
        assert_eq!(route.rewritten("/v1/users?x=/v1/").as_deref(), Some("/users?x=/v1/"));
    }

    #[test]
    fn weights_are_shares() {
        let table =
            table("{ clusters: [{ name: a, weight: 3 }, { name: b, weight: 1 }, { name: a, weight: 0 }] }");
        let route = table.find(&request("GET", "h", "/")).expect("it matches");
        fastrand::seed(7);
        let drawn = (0..4000).filter(|_| route.action.pick() == Some(0)).count();
        assert!((2800..3200).contains(&drawn), "three of four, not {drawn} of 4000");
    }
}
