//! The Proxy-Wasm contract, in one place: names, signatures and numbers.
//!
//! Weir's host and Weir's guest SDK both build from this crate, so they cannot drift apart. Every host
//! function and every callback is one row of a table ([`host_functions!`], [`wasi_functions!`],
//! [`callbacks!`]); a consumer passes the name of a macro of its own, which receives the rows.
//!
//! Sources: the Proxy-Wasm specification (ABI 0.1.0, 0.2.0 and 0.2.1), and proxy-wasm-cpp-host and Envoy 1.40
//! where the specification is silent. WASI is `wasi_snapshot_preview1`.
//!
//! `no_std`, no dependencies; the codecs need `alloc`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod context;
mod declare_property;
mod enums;
mod filter_state;
mod functions;
mod pairs;
mod property;
pub mod protobuf;

pub use context::IdHasher;
pub use declare_property::DeclareProperty;
pub use enums::{
    Action, BufferKind, LogLevel, MapKind, MetricKind, PeerKind, Status, StreamKind, UnknownValue, Version,
    WasiErrno,
};
pub use filter_state::{FilterState, FilterStateError, Span, TCP_PROXY_CLUSTER};
pub use pairs::{
    MAX_PAIRS, MAX_PAIRS_BYTES, Pairs, PairsError, decode_pairs, encode_pairs, encoded_pairs_len,
};
pub use property::{join_path, split_path};

/// The modules under which guests import the Proxy-Wasm host functions.
pub const HOST_MODULE: &str = "env";

/// The modules under which guests import WASI: today's name, and the one before it.
pub const WASI_MODULES: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];

/// An export, a function that nobody calls, by which a guest tells that it offers room for what it asks for: before a host
/// function that returns bytes, the places for their address and length hold the address of a buffer and one more than its size, or
/// no address, for no offer. Bytes that fit are written there, and the guest's allocator is not called. A host that does not know of it
/// finds nothing amiss, and one that writes nothing at all is told by the length (ADR 0023).
pub const OFFERS_ROOM: &str = "weir_offers_room";

/// The custom section in which an SDK names itself, as in `weir-sdk 0.1.0`.
pub const SDK_SECTION: &str = "weir_sdk";

/// The custom section in which a plugin says of itself, as JSON, its `name`, `version`, `sdk`, the `grants` that it asks for,
/// and the JSON Schema of its `config`. Each of them may be left out.
pub const PLUGIN_SECTION: &str = "weir.plugin";

/// The foreign function by which a filter sets filter state, [`TCP_PROXY_CLUSTER`] included.
pub const SET_FILTER_STATE: &str = "set_envoy_filter_state";

/// The foreign function by which a plugin declares how its own properties are kept.
pub const DECLARE_PROPERTY: &str = "declare_property";
