//! Series that tell the version of a plugin: what they are summed up to, and what becomes of them when nobody counts
//! into them any more. Plugins may be replaced as often as one likes, and the metrics must not grow with that.

use std::sync::{Arc, PoisonError};

use crate::telemetry::metrics::{Counter, Family, Label, Registry, Series, label_text};

/// What stands for a version in the sum of those that are gone.
const GONE: &str = "gone";

const LABEL: &str = "version=\"";

impl Registry {
    /// The sum of the counters and gauges of a name that have these as their first and, when there is one, their last
    /// labels. Of peaks it is the highest.
    pub fn total(&self, name: &str, first: Label<'_>, last: Option<Label<'_>>) -> u64 {
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let first = label_text(&[first]) + ",";
        let last = last.map(|last| format!(",{}", label_text(&[last]))).unwrap_or_default();
        let of = |labels: &str| labels.starts_with(&first) && labels.ends_with(&last);
        let series = families.get(name).into_iter().flat_map(|family| &family.series);
        let sum = series.filter(|(labels, _)| of(labels)).fold(0_u64, |sum, (_, series)| match series {
            Series::Counter(counter) | Series::Time(counter) => sum.wrapping_add(counter.value()),
            Series::Gauge(gauge) => sum.wrapping_add(gauge.value() as u64),
            Series::Peak(peak) => sum.max(peak.value()),
            Series::Histogram(_) => sum,
        });
        // What is taken away may be seen before what was added.
        if i64::try_from(sum).is_ok() { sum } else { 0 }
    }
}

/// Adds what versions that are gone have counted to one series for all of them, so that sums never go down.
pub(super) fn fold(family: &mut Family) {
    let over = |(labels, series): (&String, &Series)| {
        let gone = gone(labels)?;
        // Whoever counts holds the series, and so does whoever will.
        (gone != *labels && series.is_unused()).then(|| (labels.clone(), gone))
    };
    let over: Vec<_> = family.series.iter().filter_map(over).collect();
    for (labels, gone) in over {
        let Some(series) = family.series.remove(&labels) else { continue };
        match &series {
            Series::Counter(counter) | Series::Time(counter) => {
                let counted = counter.value();
                match family.series.get(&gone) {
                    Some(Series::Counter(sum) | Series::Time(sum)) => sum.add(counted),
                    Some(Series::Gauge(_) | Series::Peak(_) | Series::Histogram(_)) | None => {
                        family.series.insert(gone, series);
                    }
                }
            }
            // Nothing is left of these.
            Series::Gauge(_) | Series::Peak(_) | Series::Histogram(_) => {}
        }
    }
}

/// The labels of the sum that takes in a series; `None` when it tells no version.
fn gone(labels: &str) -> Option<String> {
    let (before, rest) = labels.split_once(LABEL)?;
    let (_, after) = rest.split_once('"')?;
    Some(format!("{before}{LABEL}{GONE}\"{after}"))
}

impl Series {
    /// Whether only the registry holds it.
    fn is_unused(&self) -> bool {
        match self {
            Self::Counter(Counter(shards)) | Self::Time(Counter(shards)) => Arc::strong_count(&shards.0) == 1,
            Self::Gauge(gauge) => Arc::strong_count(&gauge.0.0) == 1,
            Self::Peak(peak) => Arc::strong_count(&peak.0) == 1,
            Self::Histogram(histogram) => Arc::strong_count(&histogram.buckets) == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(version: &str) -> [Label<'_>; 3] {
        [("plugin", "p"), ("version", version), ("filter", "f")]
    }

    #[test]
    fn versions_that_are_gone_are_summed_up_and_those_that_are_not_stay() {
        let registry = Registry::new(1);
        for version in ["a", "b", "c"] {
            registry.counter("weir_x_total", "Xs.", &labels(version)).add(2);
            registry.gauge("weir_y", "Ys.", &labels(version)).add(1);
        }
        let held = registry.counter("weir_x_total", "Xs.", &labels("d"));
        held.add(5);
        assert_eq!(registry.total("weir_x_total", ("plugin", "p"), Some(("filter", "f"))), 11);
        let text = registry.render();
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("weir_")).collect();
        assert_eq!(
            lines,
            [
                r#"weir_x_total{plugin="p",version="d",filter="f"} 5"#,
                r#"weir_x_total{plugin="p",version="gone",filter="f"} 6"#
            ]
        );
        registry.counter("weir_x_total", "Xs.", &labels("e")).add(1);
        drop(held);
        registry.render();
        assert_eq!(registry.total("weir_x_total", ("plugin", "p"), None), 12);
        assert_eq!(registry.total("weir_x_total", ("plugin", "other"), None), 0);
    }
}
