//! Answers with all that the SDK tells of a request, its connection and its route, as JSON. What a request carries as JSON
//! stands in it.

use serde_json::{Value, json};
use weir_sdk::connection;
use weir_sdk::prelude::*;

struct Tells;

/// What the accessors say that are the same in every phase.
fn facts() -> Result<Value> {
    let identity = connection::identity()?;
    let identity =
        identity.map(|id| json!({ "id": id.as_str(), "domain": id.trust_domain(), "path": id.path() }));
    Ok(json!({
        "identity": identity,
        "is_mutual_tls": connection::is_mutual_tls()?,
        "tls_version": connection::tls_version()?,
        "server_name": connection::server_name()?,
        "client_subject": connection::client_subject()?,
        "client_dns_name": connection::client_dns_name()?,
        "client_certificate_digest": connection::client_certificate_digest()?,
        "client_ip": connection::client_ip()?,
        "local_port": connection::local_port()?,
        "route_name": connection::route_name()?,
        "team": connection::route_metadata("mesh", &["team"])?,
        "tier": connection::route_metadata("mesh", &["slo", "tier"])?,
        "none": connection::route_metadata("other", &["team"])?,
        "cluster_name": connection::cluster_name()?,
    }))
}

#[weir_sdk::http_filter]
impl HttpFilter for Tells {
    type Stream = Value;

    fn new(_: ()) -> Result<Self> {
        Ok(Self)
    }

    async fn on_request(&self, request: &mut Request, body: &mut Body, told: &mut Value) -> Result<Action> {
        let (headers, path) = (request.headers()?, request.path()?);
        let texts = |name| headers.get_all(name).map(String::from_utf8_lossy).collect::<Vec<_>>();
        *told = json!({
            "method": request.method()?,
            "path": path,
            "authority": request.authority()?,
            "cookie": request.cookie("session")?,
            "no_cookie": request.cookie("other")?,
            "query": request.query()?,
            "first": request.header("x-many")?,
            "many": texts("X-Many"),
            "only_of_many": headers.get_only("x-many").map(String::from_utf8_lossy),
            "only": headers.get_only("x-one").map(String::from_utf8_lossy),
            "no_header": request.header("x-none")?,
        });
        request.add_header("x-many", "3")?;
        if request.method()? == "POST" {
            told["json"] = body.read_json::<Value>(1000).await?;
        }
        let facts = facts()?;
        if path.starts_with("/reply") {
            told["facts"] = facts;
            return Ok(Action::Reply(Reply::new(203).json(told)));
        }
        told["facts_of_request"] = facts;
        Ok(Action::Continue)
    }

    fn on_response_headers(&self, response: &mut Response, told: &mut Value) -> Result<Action> {
        if response.status()? != 200 {
            // It is this filter's own.
            return Ok(Action::Continue);
        }
        told["status"] = response.status()?.into();
        told["facts"] = facts()?;
        response.set_status(207)?;
        response.set_header("x-told", told.to_string())?;
        Ok(Action::Continue)
    }

    fn on_log(&self, request: &Request, response: &Response, _: &mut Value) {
        let told = (request.method(), response.status(), facts());
        if let (Ok(method), Ok(status), Ok(facts)) = told {
            weir_sdk::info!("over: {method} {status} {facts}");
        }
    }
}
