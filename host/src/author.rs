//! The commands for those who write plugins: `weir plugin new`, `build`, `test` and `bench`. What they print is in
//! `report/`.

pub mod bench;
pub mod build;
pub mod project;
pub mod scaffold;
pub mod sdk;
pub mod test;
