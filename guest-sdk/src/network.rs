//! Filters for TCP connections, TLS passthrough included.

use std::time::Duration;

use serde::de::DeserializeOwned;
use weir_abi::{FilterState, PeerKind, SET_FILTER_STATE, Span, TCP_PROXY_CLUSTER};

use crate::body::Body;
use crate::error::{Explain, Result};
use crate::{properties, raw};

/// A filter for connections. Put [`crate::network_filter`] on the `impl`: what it implements is exported, and
/// nothing else.
/// This one lets connections pass by the server name that they ask for, and looks at the first bytes of those that ask for none:
///
/// ```
/// use weir_sdk::prelude::*;
///
/// #[derive(Deserialize, Schema)]
/// #[serde(deny_unknown_fields)]
/// struct Config {
///     /// The server names that may be asked for.
///     names: Vec<String>,
/// }
///
/// struct Gate(Config);
///
/// /// What the filter remembers of a connection.
/// #[derive(Default)]
/// struct Seen {
///     greeted: bool,
/// }
///
/// #[weir_sdk::network_filter]
/// impl NetworkFilter for Gate {
///     type Config = Config;
///     type Stream = Seen;
///
///     fn new(config: Config) -> Result<Self> {
///         Ok(Self(config))
///     }
///
///     fn on_new_connection(&self, connection: &mut Connection, _: &mut Seen) -> Result<ConnectionAction> {
///         match connection.server_name()? {
///             Some(name) if self.0.names.contains(&name) => Ok(ConnectionAction::Continue),
///             Some(_) => Ok(ConnectionAction::Close),
///             None => Ok(ConnectionAction::Continue),
///         }
///     }
///
///     fn on_downstream_data(&self, data: &mut Body, seen: &mut Seen) -> Result<ConnectionAction> {
///         if seen.greeted {
///             return Ok(ConnectionAction::Continue);
///         }
///         // Until enough is here it gathers, and the filter is asked again with all of it.
///         if data.len() < 4 && !data.is_last() {
///             return Ok(ConnectionAction::Pause);
///         }
///         seen.greeted = data.read_range(0, 4)? == b"EHLO";
///         Ok(if seen.greeted { ConnectionAction::Continue } else { ConnectionAction::Close })
///     }
/// }
/// # fn main() {}
/// ```
pub trait NetworkFilter: Sized + 'static {
    /// The filter's configuration: what serde makes of its JSON. May be left out when there is none.
    type Config: DeserializeOwned;

    /// What the filter remembers of a connection. May be left out when it is nothing.
    type Stream: Default + 'static;

    /// Makes the filter from its configuration.
    ///
    /// # Errors
    /// When the configuration makes no sense. The host then refuses it, with this error.
    fn new(config: Self::Config) -> Result<Self>;

    /// A connection is here. The host has read its TLS ClientHello, if it listens for one, and no more.
    ///
    /// # Errors
    /// What is in the way; the connection is closed.
    fn on_new_connection(
        &self,
        _connection: &mut Connection,
        _stream: &mut Self::Stream,
    ) -> Result<ConnectionAction> {
        Ok(ConnectionAction::Continue)
    }

    /// Bytes from the downstream are here. While the filter pauses, they gather.
    ///
    /// # Errors
    /// What is in the way; the connection is closed.
    fn on_downstream_data(&self, _data: &mut Body, _stream: &mut Self::Stream) -> Result<ConnectionAction> {
        Ok(ConnectionAction::Continue)
    }

    /// Bytes from the upstream are here. While the filter pauses, they gather.
    ///
    /// # Errors
    /// What is in the way; the connection is closed.
    fn on_upstream_data(&self, _data: &mut Body, _stream: &mut Self::Stream) -> Result<ConnectionAction> {
        Ok(ConnectionAction::Continue)
    }

    /// The downstream is closed.
    fn on_downstream_close(&self, _by: PeerKind, _stream: &mut Self::Stream) {}

    /// The upstream is closed.
    fn on_upstream_close(&self, _by: PeerKind, _stream: &mut Self::Stream) {}

    /// The timer, at the interval of [`NetworkFilter::TICK`].
    fn on_tick(&self) {}

    /// The interval of [`NetworkFilter::on_tick`].
    const TICK: Duration = Duration::from_secs(1);
}

/// What becomes of a connection, or of its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionAction {
    /// It goes on to the next filter.
    Continue,
    /// It waits here.
    Pause,
    /// It is closed.
    Close,
}

/// A connection.
/// ```
/// use weir_sdk::prelude::*;
///
/// /// `orders.internal` goes to the cluster `orders`.
/// fn route(connection: &mut Connection) -> Result<ConnectionAction> {
///     let name = connection.server_name()?.unwrap_or_default();
///     let Some(cluster) = name.strip_suffix(".internal") else { return Ok(ConnectionAction::Close) };
///     connection.route_to(cluster)?;
///     Ok(ConnectionAction::Continue)
/// }
/// ```
#[derive(Debug)]
pub struct Connection(pub(crate) ());

impl Connection {
    /// The server name that the client asked for in its TLS handshake, in its canonical form.
    ///
    /// # Errors
    /// When the host does not answer.
    pub fn server_name(&self) -> Result<Option<String>> {
        properties::server_name()
    }

    /// The address of the downstream, as `address:port`.
    ///
    /// # Errors
    /// When the host does not answer.
    pub fn source_address(&self) -> Result<Option<String>> {
        properties::source_address()
    }

    /// Has the connection go to this cluster. The operator must have defined it.
    ///
    /// # Errors
    /// When the host does not take it.
    pub fn route_to(&mut self, cluster: &str) -> Result<()> {
        let state = FilterState {
            path: TCP_PROXY_CLUSTER,
            value: cluster.as_bytes(),
            span: Span::DownstreamConnection,
        };
        let routed = raw::call_foreign(SET_FILTER_STATE, &state.encode());
        routed.map(drop).explain(|| format!("routing to cluster `{cluster}`"))
    }
}
