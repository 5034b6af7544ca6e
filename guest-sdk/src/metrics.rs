//! Metrics of the filter's own.
//!
//! One whose name is known is a static. It is defined when it is first used:
//!
//! ```
//! use weir_sdk::metrics::{Counter, Static};
//!
//! static DENIED: Static<Counter> = Static::new("denied");
//!
//! DENIED.increment();
//! ```
//!
//! One whose name is made at run time is defined by [`Counter::define`] and its like, once, when the filter is made.

use std::ops::Deref;
use std::sync::OnceLock;

use weir_abi::MetricKind;

use crate::error::{Explain, Result};
use crate::raw;

/// Declares a kind of metric.
macro_rules! metric {
    ($(#[$doc:meta])* $name:ident, $kind:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(u32);

        impl Metric for $name {
            fn defined(name: &str) -> Self {
                // A metric that cannot be counted must not cost a request: the host knows no such number.
                Self::define(name).unwrap_or(Self(u32::MAX))
            }
        }

        impl $name {
            /// Defines it.
            ///
            /// # Errors
            /// When the host does not take the name.
            pub fn define(name: &str) -> Result<Self> {
                raw::define_metric(MetricKind::$kind, name).map(Self).explain(|| format!("defining metric `{name}`"))
            }
        }
    };
}

metric! {
    /// A number that only goes up.
    Counter, Counter
}

metric! {
    /// A number that goes up and down.
    Gauge, Gauge
}

metric! {
    /// A distribution.
    Histogram, Histogram
}

impl Counter {
    /// Adds one.
    pub fn increment(self) {
        self.add(1);
    }

    /// Adds `by`; 0 changes nothing.
    pub fn add(self, by: u64) {
        if by > 0 {
            // A metric that cannot be counted must not cost a request.
            let _ = raw::increment_metric(self.0, i64::try_from(by).unwrap_or(i64::MAX));
        }
    }
}

impl Gauge {
    /// Sets it.
    pub fn set(self, value: u64) {
        // A metric that cannot be counted must not cost a request.
        let _ = raw::record_metric(self.0, value);
    }

    /// Adds `by`, which may be negative.
    pub fn add(self, by: i64) {
        // A metric that cannot be counted must not cost a request.
        let _ = raw::increment_metric(self.0, by);
    }

    /// Its value.
    ///
    /// # Errors
    /// When the host does not answer.
    pub fn value(self) -> Result<u64> {
        raw::metric(self.0).explain(|| "reading a metric".to_owned())
    }
}

impl Histogram {
    /// Records a value.
    pub fn record(self, value: u64) {
        // A metric that cannot be counted must not cost a request.
        let _ = raw::record_metric(self.0, value);
    }
}

/// A metric that is a static. See the module's documentation.
#[derive(Debug)]
pub struct Static<M> {
    name: &'static str,
    metric: OnceLock<M>,
}

impl<M> Static<M> {
    /// One of this name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, metric: OnceLock::new() }
    }
}

impl<M: Metric> Deref for Static<M> {
    type Target = M;

    fn deref(&self) -> &M {
        self.metric.get_or_init(|| M::defined(self.name))
    }
}

/// A kind of metric.
pub trait Metric {
    /// The metric of this name; one that counts nothing when the host does not take it.
    #[doc(hidden)]
    fn defined(name: &str) -> Self;
}
