//! Plugins, built from source once for each run of the suite.

use std::path::PathBuf;
use std::sync::OnceLock;

/// The standard filters' folder.
///
/// # Panics
/// When they do not build.
pub fn filters() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| xtask::guests::build_filters().expect("the standard filters build"))
}

/// The folder of the suite's own guests.
///
/// # Panics
/// When they do not build.
pub fn test_guests() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| xtask::guests::build_test_guests().expect("the test guests build"))
}

/// The bytes of a standard filter, or of a guest of the suite.
///
/// # Panics
/// When there is none of that name.
pub fn wasm(name: &str) -> Vec<u8> {
    let filter = filters().join(format!("{name}.wasm"));
    let path =
        if filter.exists() { filter } else { test_guests().join(format!("{}.wasm", name.replace('-', "_"))) };
    std::fs::read(&path).unwrap_or_else(|error| panic!("no guest {name} at {}: {error}", path.display()))
}

/// The bytes of a guest with one text in place of another of the same length: another version of it, without
/// another build.
///
/// # Panics
/// When the text is not there, or the lengths differ.
pub fn patched(name: &str, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "the code around it must stay where it is");
    let mut bytes = wasm(name);
    let places: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter(|(_, w)| *w == from.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty(), "{from:?} is not in {name}");
    for place in places {
        bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

/// The folder of what gateways have compiled of guests: it takes seconds in a build that is not optimised.
///
/// # Panics
/// When it cannot be made.
pub fn compiled() -> &'static PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = xtask::cargo::target().join("tests/compiled");
        std::fs::create_dir_all(&folder).expect("the target folder can be written");
        folder
    })
}

/// A guest in WebAssembly's text format.
///
/// # Panics
/// When it is none.
pub fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("a module in the text format")
}

/// The `weir` command.
///
/// # Panics
/// When it does not build.
pub fn weir() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| xtask::cargo::build_weir(false).expect("weir builds"))
}
