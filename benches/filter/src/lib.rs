//! The filter that is measured: it reads three headers, one of which decides, and sets two. HAProxy and nginx do the
//! same by rules of their own (`benches/peers`), and Envoy runs this very module.

use weir_sdk::prelude::*;

/// The filter. It has no configuration.
#[derive(Debug)]
struct Bench;

#[weir_sdk::http_filter]
impl HttpFilter for Bench {
    fn new(_: ()) -> Result<Self> {
        Ok(Self)
    }

    fn on_request_headers(&self, request: &mut Request, _: &mut ()) -> Result<Action> {
        let role = request.header("x-role")?.unwrap_or_default();
        let tenant = request.header("x-tenant")?.unwrap_or_default();
        let agent = request.header("user-agent")?.unwrap_or_default();
        if role == "blocked" {
            return Ok(Action::Reply(Reply::new(403).body("blocked\n")));
        }
        request.set_header("x-checked-tenant", &tenant)?;
        request.set_header("x-checked-agent", &agent)?;
        Ok(Action::Continue)
    }
}
