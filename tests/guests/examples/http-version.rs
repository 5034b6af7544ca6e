//! Tells its version, which the test suite writes into its data, in a response header.

use std::hint::black_box;

use weir_sdk::prelude::*;

static VERSION: &str = "this-is-version-0000";

struct Version;

#[weir_sdk::http_filter]
impl HttpFilter for Version {
    fn new(_: ()) -> Result<Self> {
        if black_box(VERSION).ends_with("trap") {
            panic!("this version traps when it is configured");
        }
        Ok(Self)
    }

    fn on_response_headers(&self, response: &mut Response, _: &mut ()) -> Result<Action> {
        response.set_header("x-version", black_box(VERSION))?;
        Ok(Action::Continue)
    }
}
