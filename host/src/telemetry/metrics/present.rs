//! Numbers of things that come and go: what is not there any more is not shown any more.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use crate::telemetry::metrics::{Family, Gauge, Kind, Label, Registry, Series, Shards, label_text};

impl Registry {
    /// Shows these numbers under a name, and no others: what is not among them is not shown any more.
    pub fn show_only<'a>(
        &self,
        name: &str,
        help: &'static str,
        numbers: impl IntoIterator<Item = ([Label<'a>; 2], i64)>,
    ) {
        let show = |(labels, number): ([Label<'a>; 2], i64)| {
            let gauge = Gauge(Shards::new(self.shards));
            gauge.set(number);
            (label_text(&labels), Series::Gauge(gauge))
        };
        let series: BTreeMap<_, _> = numbers.into_iter().map(show).collect();
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        if series.is_empty() {
            families.remove(name);
        } else {
            families.insert(name.to_owned(), Family { help, kind: Kind::Gauge, series });
        }
    }
}
