//! Long runs: hostile guests and floods beside neighbours, idle clients, reloads and rotations under load, random modules. `cargo xtask soak` runs them, and
//! the suite runs short forms of them.

pub mod envoy;
pub mod floods;
pub mod idle;
pub mod load;
pub mod modules;
pub mod neighbours;
pub mod pairing;
pub mod process;
pub mod provoke;
pub mod reload;
pub mod report;
pub mod rotation;
pub mod takeover;
pub mod upstream;
pub mod upstream_kills;
pub mod weir;
