//! Routes every connection to the cluster whose name stands in its data, where the test suite writes another.

use std::hint::black_box;

use weir_sdk::prelude::*;

static CLUSTER: &str = "cluster-of-version-0000";

struct Version;

#[weir_sdk::network_filter]
impl NetworkFilter for Version {
    fn new(_: ()) -> Result<Self> {
        if black_box(CLUSTER).ends_with("trap") {
            panic!("this version traps when it is configured");
        }
        Ok(Self)
    }

    fn on_new_connection(&self, connection: &mut Connection, _: &mut ()) -> Result<ConnectionAction> {
        connection.route_to(black_box(CLUSTER))?;
        Ok(ConnectionAction::Continue)
    }
}
