//! What needs more than one cargo call. The test suite uses the parts that build guests and make certificates.

pub mod bench;
pub mod cargo;
pub mod certs;
pub mod ci;
pub mod demo;
pub mod exchange;
pub mod guests;
pub mod parity;
pub mod soak;

/// Tells the user something.
#[expect(clippy::print_stderr, reason = "the commands' output")]
pub fn say(line: &str) {
    eprintln!("{line}");
}
