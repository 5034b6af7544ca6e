//! The smallest, the middle and the largest of some numbers.

/// What the rounds came to.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The one in the middle; of an even number, the larger of the two.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these; not-a-number where there are none.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        Self { min: at(0), median: at(values.len() / 2), max: at(values.len().saturating_sub(1)) }
    }

    /// All three, with so many digits behind the point.
    pub fn show(&self, digits: usize) -> String {
        let Self { min, median, max } = self;
        format!("{min:.digits$} / {median:.digits$} / {max:.digits$}")
    }
}
