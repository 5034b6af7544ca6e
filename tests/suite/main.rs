//! The suite. One file for each feature; the names of the tests are claims.

mod live_swap;
mod passthrough;
mod tcp;
