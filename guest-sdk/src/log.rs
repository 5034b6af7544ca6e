//! Lines for the host's log. They carry the filter's name.

use weir_abi::LogLevel;

use crate::raw;

/// Writes a line. The macros [`crate::debug!`], [`crate::info!`], [`crate::warn!`] and [`crate::error!`] are
/// shorter.
pub fn write(level: LogLevel, message: &str) {
    raw::log(level, message);
}

/// Writes a line for the author of the filter.
#[macro_export]
macro_rules! debug {
    ($($arg:tt)*) => { $crate::log::write($crate::LogLevel::Debug, &::std::format!($($arg)*)) };
}

/// Writes a line for the operator.
#[macro_export]
macro_rules! info {
    ($($arg:tt)*) => { $crate::log::write($crate::LogLevel::Info, &::std::format!($($arg)*)) };
}

/// Writes a line about something odd.
#[macro_export]
macro_rules! warn {
    ($($arg:tt)*) => { $crate::log::write($crate::LogLevel::Warn, &::std::format!($($arg)*)) };
}

/// Writes a line about something that failed.
#[macro_export]
macro_rules! error {
    ($($arg:tt)*) => { $crate::log::write($crate::LogLevel::Error, &::std::format!($($arg)*)) };
}
