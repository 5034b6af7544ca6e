//! Tells of random numbers: one that is drawn for the stream, and one that was drawn when the plugin was configured.

use weir_sdk::prelude::*;
use weir_sdk::random;

struct Random(u64);

#[weir_sdk::http_filter]
impl HttpFilter for Random {
    fn new(_: ()) -> Result<Self> {
        random::number().map(Self)
    }

    fn on_request_headers(&self, request: &mut Request, _: &mut ()) -> Result<Action> {
        request.set_header("x-fresh", format!("{:x}", random::number()?))?;
        request.set_header("x-kept", format!("{:x}", self.0))?;
        Ok(Action::Continue)
    }
}
