//! What guests are told of the world beside their streams, and what they say to it: the time and their log. A proxy has
//! the system's clocks and Weir's log; where plugins are tried out, whoever does that stands in for both.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use weir_abi::LogLevel;

use crate::plugin::services::FaultKind;
use crate::plugin::watch::Watch;

/// What stands in for the world.
pub trait Outside: Debug + Send + Sync {
    /// The time of day.
    fn wall(&self) -> SystemTime;

    /// The time of a clock that is never set.
    fn monotonic(&self) -> Duration;

    /// The least level of lines that somebody sees.
    fn log_level(&self) -> LogLevel;

    /// A filter has written a line.
    fn logged(&self, filter: &str, level: LogLevel, message: &str);

    /// Who is to look on at the calls into an instance of a filter.
    fn watch(&self, filter: &str) -> Option<Watch>;

    /// A call has ended its instance.
    fn failed(&self, plugin: &str, kind: FaultKind, message: &str);
}
