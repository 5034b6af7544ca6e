//! `ext-authz`: a service of the operator's own is asked whether a request may pass.
//!
//! It is asked in Envoy's words: `envoy.service.auth.v3.Authorization` over gRPC, or the request's own head over HTTP. So
//! services that were written for Envoy's filter of that name work here, too. What is not answered is denied.

mod check;
mod decision;
mod service;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use filter_parts::duration::Span;
use filter_parts::text::is_token;
use weir_sdk::metrics::Counter;
use weir_sdk::prelude::*;
use weir_sdk::{properties, warn};

use crate::check::{Body as CheckedBody, Facts, Peer};
use crate::decision::{Decision, Edit, edit_response, reply};
use crate::service::{Service, ServiceConfig, is_of_connection};

/// The filter's configuration.
#[derive(Debug, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The service that is asked.
    service: ServiceConfig,
    /// How long it may take.
    #[serde(default = "a_moment")]
    timeout: Span,
    /// Whether requests pass when it gives no answer.
    #[serde(default)]
    failure_mode_allow: bool,
    /// The status of the answer when it gives none.
    #[serde(default = "forbidden")]
    status_on_error: u16,
    /// Whether it is shown bodies, and how much of them.
    body: Option<BodyConfig>,
    /// The request headers that it is told of, `x-*` for all that begin so.
    allowed_headers: Option<Vec<String>>,
    /// Those that it is not told of.
    #[serde(default)]
    disallowed_headers: Vec<String>,
    /// What it is told besides.
    #[serde(default)]
    context_extensions: BTreeMap<String, String>,
    /// Whether it is told the client's certificate.
    #[serde(default)]
    include_peer_certificate: bool,
    /// Whether it is told the server name of TLS.
    #[serde(default)]
    include_tls_session: bool,
}

/// What of bodies is shown.
#[derive(Debug, Clone, Copy, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
struct BodyConfig {
    /// The most bytes. A request with more is answered with 413.
    max_bytes: usize,
    /// Whether it is told as bytes and not as text; for gRPC.
    #[serde(default)]
    as_bytes: bool,
}

fn a_moment() -> Span {
    Span(Duration::from_millis(200))
}

fn forbidden() -> u16 {
    403
}

/// The filter.
#[derive(Debug)]
struct ExtAuthz {
    settings: Settings,
    allowed: Counter,
    denied: Counter,
    failed: Counter,
}

/// What is configured.
#[derive(Debug)]
struct Settings {
    service: Service,
    timeout: Duration,
    failure_mode_allow: bool,
    status_on_error: u16,
    body: Option<BodyConfig>,
    allowed_headers: Option<Vec<String>>,
    disallowed_headers: Vec<String>,
    extensions: Vec<(String, String)>,
    include_peer_certificate: bool,
    include_tls_session: bool,
}

#[weir_sdk::http_filter]
impl HttpFilter for ExtAuthz {
    type Config = Config;
    /// What the response is to have.
    type Stream = Vec<Edit>;

    fn new(config: Config) -> Result<Self> {
        Ok(Self {
            settings: Settings::compile(config)?,
            allowed: Counter::define("ext_authz_allowed")?,
            denied: Counter::define("ext_authz_denied")?,
            failed: Counter::define("ext_authz_failed")?,
        })
    }

    async fn on_request(
        &self,
        request: &mut Request,
        body: &mut Body,
        response: &mut Vec<Edit>,
    ) -> Result<Action> {
        let (settings, mut facts) = (&self.settings, self.settings.facts(request)?);
        let shown = match settings.body {
            Some(wanted) if !request.is_last() => {
                // The head must be here still when the service has its say.
                body.hold_headers();
                let bytes = body.read_all(wanted.max_bytes).await?;
                facts.body = Some(match wanted.as_bytes {
                    true => CheckedBody::Bytes(bytes.clone()),
                    false => CheckedBody::Text(String::from_utf8_lossy(&bytes).replace('\u{fffd}', "!")),
                });
                Some(bytes)
            }
            Some(_) | None => None,
        };
        match settings.service.ask(&facts, shown, settings.timeout).await {
            Ok(Decision::Allow(edits)) => {
                self.allowed.increment();
                edits.edit_request(request)?;
                *response = edits.response;
                Ok(Action::Continue)
            }
            Ok(Decision::Deny { status, headers, body }) => {
                self.denied.increment();
                Ok(Action::Reply(reply(status, &headers, body)))
            }
            Err(error) => {
                self.failed.increment();
                if settings.failure_mode_allow {
                    warn!("a request passes unasked: {error}");
                    return Ok(Action::Continue);
                }
                Ok(Action::Reply(
                    Reply::new(settings.status_on_error).body("denied\n").details(error.to_string()),
                ))
            }
        }
    }

    fn on_response_headers(&self, response: &mut Response, edits: &mut Vec<Edit>) -> Result<Action> {
        edit_response(edits, response)?;
        Ok(Action::Continue)
    }
}

impl Settings {
    fn compile(config: Config) -> Result<Self> {
        let service = config.service.compile()?;
        if config.timeout.0.is_zero() {
            return Err(Error::new("`timeout` is more than 0"));
        }
        if !(400..=599).contains(&config.status_on_error) {
            return Err(Error::new(format!(
                "`status_on_error: {}` denies nothing; use 400 to 599",
                config.status_on_error
            )));
        }
        if config.body.is_some_and(|body| body.max_bytes == 0) {
            return Err(Error::new(
                "`body.max_bytes` is 0; leave `body` out where bodies are not to be shown",
            ));
        }
        let patterns = config.allowed_headers.iter().flatten().chain(&config.disallowed_headers);
        if let Some(name) =
            patterns.map(|name| name.strip_suffix('*').unwrap_or(name)).find(|name| !is_token(name))
        {
            return Err(Error::new(format!(
                "`{name}` is not a header name; use letters, digits and `-`, and `x-*` for all that begin so"
            )));
        }
        let lower =
            |names: Vec<String>| names.into_iter().map(|name| name.to_ascii_lowercase()).collect::<Vec<_>>();
        Ok(Self {
            service,
            timeout: config.timeout.0,
            failure_mode_allow: config.failure_mode_allow,
            status_on_error: config.status_on_error,
            body: config.body,
            allowed_headers: config.allowed_headers.map(lower),
            disallowed_headers: lower(config.disallowed_headers),
            extensions: config.context_extensions.into_iter().collect(),
            include_peer_certificate: config.include_peer_certificate,
            include_tls_session: config.include_tls_session,
        })
    }

    /// Whether the service is told of a header.
    fn tells(&self, name: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => pattern == name,
        };
        if self.disallowed_headers.iter().any(fits) {
            return false;
        }
        match &self.allowed_headers {
            Some(allowed) => {
                allowed.iter().any(fits) || (!self.service.is_told_all() && name == "authorization")
            }
            None => self.service.is_told_all() || name == "authorization",
        }
    }

    /// What the service is told of a request.
    fn facts(&self, request: &Request) -> Result<Facts> {
        let headers = request.headers()?;
        let only = |name: &str| headers.get_only(name).map(text).unwrap_or_default();
        let connection = |name: &str| properties::text(&["connection", name]).map(Option::unwrap_or_default);
        let mut facts = Facts {
            source: Peer {
                address: socket(properties::text(&["source", "address"])?),
                principal: principal("peer")?,
                certificate: if self.include_peer_certificate {
                    connection("peer_certificate")?
                } else {
                    String::new()
                },
            },
            destination: Peer {
                address: socket(properties::text(&["destination", "address"])?),
                principal: principal("local")?,
                certificate: String::new(),
            },
            time: properties::number(&["request", "time"])?.unwrap_or_default(),
            id: only("x-request-id"),
            method: only(":method"),
            headers: Vec::new(),
            path: only(":path"),
            host: only(":authority"),
            scheme: only(":scheme"),
            size: only("content-length").parse().ok().or(request.is_last().then_some(0)),
            protocol: properties::text(&["request", "protocol"])?.unwrap_or_default(),
            body: None,
            extensions: self.extensions.clone(),
            server_name: if self.include_tls_session {
                Some(connection("requested_server_name")?)
            } else {
                None
            },
        };
        for (name, value) in headers.iter() {
            let of_call = self.service.is_told_all()
                || !(name.starts_with(':') || is_of_connection(name) || name == "host");
            if of_call && self.tells(name) {
                add(&mut facts.headers, name, &text(value));
            }
        }
        Ok(facts)
    }
}

/// Adds a header; several of one name are one, as they would be in one line.
fn add(headers: &mut Vec<(String, String)>, name: &str, value: &str) {
    match headers.iter_mut().find(|(known, _)| known == name) {
        Some((_, all)) => {
            all.push_str(if name == "cookie" { "; " } else { "," });
            all.push_str(value);
        }
        None => headers.push((name.to_owned(), value.to_owned())),
    }
}

/// A header's value as text; what is none is replaced as Envoy does it.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).replace('\u{fffd}', "!")
}

fn socket(address: Option<String>) -> Option<(IpAddr, u16)> {
    let address: SocketAddr = address?.parse().ok()?;
    Some((address.ip().to_canonical(), address.port()))
}

/// Who is at an end of the connection, by its certificate: the URI name, the DNS name, or the subject.
fn principal(end: &str) -> Result<String> {
    for name in ["uri_san", "dns_san", "subject"] {
        let known = properties::text(&["connection", &format!("{name}_{end}_certificate")])?;
        if let Some(known) = known.filter(|known| !known.is_empty()) {
            return Ok(known);
        }
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests;
