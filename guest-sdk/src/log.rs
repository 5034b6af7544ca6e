//! Lines for the host's log. They carry the filter's name.
//!
//! Fields stand behind the text, as `name=value`, for whoever searches the log:
//!
//! ```
//! let (status, path) = (403, "/a b");
//! weir_sdk::info!(status = status, path = path; "denied by rule {}", 3);
//! // denied by rule 3 status=403 path="/a b"
//! ```

use std::fmt::Display;

use weir_abi::LogLevel;

use crate::raw;

/// Writes a line. The macros [`crate::debug!`], [`crate::info!`], [`crate::warn!`] and [`crate::error!`] are
/// shorter.
pub fn write(level: LogLevel, message: &str) {
    raw::log(level, message);
}

/// A field of a line. A value with spaces or quotes is quoted.
#[doc(hidden)]
#[must_use]
pub fn field(name: &str, value: impl Display) -> String {
    let value = value.to_string();
    if value.is_empty() || value.contains([' ', '"', '=', '\\', '\n']) {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        return format!(" {name}=\"{value}\"");
    }
    format!(" {name}={value}")
}

/// Writes a line of any level: for the macros.
#[doc(hidden)]
#[macro_export]
macro_rules! log_line {
    ($level:ident, $($name:ident = $value:expr),+; $($arg:tt)*) => {{
        let mut line = ::std::format!($($arg)*);
        $(line.push_str(&$crate::log::field(::core::stringify!($name), &$value));)+
        $crate::log::write($crate::LogLevel::$level, &line)
    }};
    ($level:ident, $($arg:tt)*) => { $crate::log::write($crate::LogLevel::$level, &::std::format!($($arg)*)) };
}

/// Writes a line for the author of the filter.
#[macro_export]
macro_rules! debug {
    ($($arg:tt)*) => { $crate::log_line!(Debug, $($arg)*) };
}

/// Writes a line for the operator.
#[macro_export]
macro_rules! info {
    ($($arg:tt)*) => { $crate::log_line!(Info, $($arg)*) };
}

/// Writes a line about something odd.
#[macro_export]
macro_rules! warn {
    ($($arg:tt)*) => { $crate::log_line!(Warn, $($arg)*) };
}

/// Writes a line about something that failed.
#[macro_export]
macro_rules! error {
    ($($arg:tt)*) => { $crate::log_line!(Error, $($arg)*) };
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_are_quoted_where_they_would_be_misread() {
        assert_eq!(field("a", 3), " a=3");
        assert_eq!(field("a", "x \"y\"\n"), r#" a="x \"y\"\n""#);
        assert_eq!(field("a", ""), " a=\"\"");
    }
}
