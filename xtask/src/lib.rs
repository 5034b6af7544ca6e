//! What needs more than one cargo call. The test suite uses the parts that build guests and make certificates.

pub mod cargo;
pub mod certs;
pub mod guests;
