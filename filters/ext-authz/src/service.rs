//! Services that are asked: over HTTP with the request's own head, or over gRPC with a message about it.

use std::time::Duration;

use filter_parts::text::is_token;
use serde::Deserialize;
use weir_sdk::schema::Schema;
use weir_sdk::{Error, Headers, Result, grpc, http};

use crate::check::{Facts, read};
use crate::decision::{Decision, Edit, Edits, How, denial, may_edit};

/// A service as it is written: exactly one of `grpc` and `http`.
#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServiceConfig {
    /// A service that speaks `envoy.service.auth.v3.Authorization`.
    grpc: Option<GrpcConfig>,
    /// A service that is asked by HTTP.
    http: Option<HttpConfig>,
}

#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
struct GrpcConfig {
    /// The cluster that is asked. It speaks HTTP/2.
    cluster: String,
}

#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
struct HttpConfig {
    /// The cluster that is asked.
    cluster: String,
    /// The host that is asked for; the request's own, when it is left out.
    host: Option<String>,
    /// What stands before the request's own path.
    #[serde(default)]
    path_prefix: String,
    /// Headers of an answer that allows which the upstream gets. What the client says there is removed.
    #[serde(default)]
    upstream_headers: Vec<String>,
    /// Headers of an answer that denies which the client gets; without it, all of them.
    client_headers: Option<Vec<String>>,
    /// Headers of an answer that allows which the client gets with the response.
    #[serde(default)]
    client_headers_on_success: Vec<String>,
}

/// A service.
#[derive(Debug)]
pub(crate) enum Service {
    Grpc { cluster: String },
    Http(Http),
}

#[derive(Debug)]
pub(crate) struct Http {
    cluster: String,
    host: Option<String>,
    path_prefix: String,
    upstream_headers: Vec<String>,
    client_headers: Option<Vec<String>>,
    client_headers_on_success: Vec<String>,
}

impl ServiceConfig {
    /// # Errors
    /// When it is none, or both.
    pub(crate) fn compile(self) -> Result<Service> {
        let no_cluster =
            || Error::new("`service` has no `cluster`; name one that `grants.clusters` has, too");
        let http = match (self.grpc, self.http) {
            (Some(grpc), None) if grpc.cluster.is_empty() => return Err(no_cluster()),
            (Some(grpc), None) => return Ok(Service::Grpc { cluster: grpc.cluster }),
            (None, Some(http)) => http,
            (None, None) | (Some(_), Some(_)) => {
                return Err(Error::new("`service` has exactly one of `grpc` and `http`"));
            }
        };
        if http.cluster.is_empty() {
            return Err(no_cluster());
        }
        if !http.path_prefix.is_empty() && !http.path_prefix.starts_with('/') {
            return Err(Error::new(format!("`path_prefix: {}` does not begin with `/`", http.path_prefix)));
        }
        let lists = [
            Some(&http.upstream_headers),
            http.client_headers.as_ref(),
            Some(&http.client_headers_on_success),
        ];
        if let Some(name) =
            lists.into_iter().flatten().flatten().find(|name| !is_token(name) || !may_edit(name))
        {
            return Err(Error::new(format!("`{name}` is not a header that a service may have a say about")));
        }
        let lower =
            |names: Vec<String>| names.into_iter().map(|name| name.to_ascii_lowercase()).collect::<Vec<_>>();
        Ok(Service::Http(Http {
            cluster: http.cluster,
            host: http.host,
            path_prefix: http.path_prefix,
            upstream_headers: lower(http.upstream_headers),
            client_headers: http.client_headers.map(lower),
            client_headers_on_success: lower(http.client_headers_on_success),
        }))
    }
}

impl Service {
    /// Whether headers are sent to it that are not asked for.
    pub(crate) fn is_told_all(&self) -> bool {
        matches!(self, Self::Grpc { .. })
    }

    /// Asks it.
    ///
    /// # Errors
    /// When it gives no answer, or one that is none.
    pub(crate) async fn ask(
        &self,
        facts: &Facts,
        body: Option<Vec<u8>>,
        timeout: Duration,
    ) -> Result<Decision> {
        match self {
            Self::Grpc { cluster } => {
                const SERVICE: &str = "envoy.service.auth.v3.Authorization";
                let call = grpc::call(cluster.as_str(), SERVICE, "Check", facts.encode()).timeout(timeout);
                read(&call.await?)
            }
            Self::Http(service) => service.ask(facts, body, timeout).await,
        }
    }
}

/// Headers that are of one connection, or of one body (RFC 9110 section 7.6.1).
pub(crate) fn is_of_connection(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        "connection",
        "content-length",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.contains(&name)
}

impl Http {
    async fn ask(&self, facts: &Facts, body: Option<Vec<u8>>, timeout: Duration) -> Result<Decision> {
        let path = format!("{}{}", self.path_prefix, facts.path);
        let request = http::Request::new(facts.method.as_str(), path).timeout(timeout);
        let mut request =
            request.authority(self.host.as_ref().unwrap_or(&facts.host)).body(body.unwrap_or_default());
        for (name, value) in &facts.headers {
            request = request.header(name.as_str(), value.as_bytes());
        }
        let answer = http::call(self.cluster.as_str(), request).await?;
        self.decide(answer.status(), answer.headers(), answer.body())
    }

    fn decide(&self, status: u16, headers: &Headers, body: &[u8]) -> Result<Decision> {
        let pairs: Vec<(&str, &[u8])> =
            headers.iter().filter(|(name, _)| may_edit(name) && !is_of_connection(name)).collect();
        match status {
            200 => Ok(Decision::Allow(self.edits(&pairs))),
            // The service itself is in trouble.
            0..=299 | 500.. => Err(Error::new(format!("the service answered {status}"))),
            _ => {
                let always = |name: &str| matches!(name, "www-authenticate" | "location");
                let told = |name: &str| {
                    self.client_headers
                        .as_ref()
                        .is_none_or(|names| always(name) || names.iter().any(|known| known == name))
                };
                let headers = picked(&pairs, told);
                Ok(Decision::Deny { status: denial(status.into())?, headers, body: body.to_vec() })
            }
        }
    }

    /// What an answer that allows wants. What the client says in the place of the service is removed.
    fn edits(&self, answer: &[(&str, &[u8])]) -> Edits {
        let mut remove = self.upstream_headers.clone();
        let also = answer.iter().filter(|(name, _)| *name == "x-envoy-auth-headers-to-remove");
        let also = also
            .flat_map(|(_, value)| value.split(|&byte| byte == b','))
            .filter_map(|name| str::from_utf8(name.trim_ascii()).ok());
        remove.extend(also.map(str::to_ascii_lowercase));
        Edits {
            remove,
            headers: picked(answer, |name| self.upstream_headers.iter().any(|known| known == name)),
            response: picked(answer, |name| self.client_headers_on_success.iter().any(|known| known == name)),
            ..Edits::default()
        }
    }
}

/// The headers that are wanted: the first of a name takes the place of what was there, the others are added.
fn picked(answer: &[(&str, &[u8])], wanted: impl Fn(&str) -> bool) -> Vec<Edit> {
    let mut edits: Vec<Edit> = Vec::new();
    for (name, value) in answer.iter().filter(|(name, _)| wanted(name)) {
        let again = edits.iter().any(|edit| edit.name == *name);
        let how = if again { How::Add } else { How::Set };
        edits.push(Edit { name: (*name).to_owned(), value: value.to_vec(), how });
    }
    edits
}
