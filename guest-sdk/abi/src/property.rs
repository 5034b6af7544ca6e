//! Property paths: segments joined by NUL.

use alloc::string::String;

/// The segments of a property path. One trailing NUL is dropped: the C++ and Zig SDKs write one.
pub fn split_path(path: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    path.strip_suffix(&[0]).unwrap_or(path).split(|&byte| byte == 0)
}

/// Joins segments into a property path.
#[must_use]
pub fn join_path(segments: &[&str]) -> String {
    segments.join("\0")
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn a_path_splits_at_nul_and_one_trailing_nul_is_dropped() {
        let split = |path: &'static str| split_path(path.as_bytes()).collect::<Vec<_>>();
        assert_eq!(split("request\0path"), [b"request".as_slice(), b"path"]);
        assert_eq!(split("request\0path\0"), [b"request".as_slice(), b"path"]);
        assert_eq!(split("plugin_root_id"), [b"plugin_root_id"]);
        assert_eq!(split(&join_path(&["a", "b"]).leak()[..]), [b"a", b"b"]);
    }
}
