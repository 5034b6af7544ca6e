//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A place in a file, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mark {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// A field and where it stands, for problems that show only after it was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// Where it stands.
    pub at: Mark,
    /// The path of the field, as in `listeners[0].http.routes[1].cluster`.
    pub field: Arc<str>,
}

impl Place {
    /// A problem here.
    pub fn problem(&self, file: &Path, message: impl Into<String>) -> Problem {
        Problem { file: file.to_owned(), at: self.at, field: self.field.to_string(), message: message.into() }
    }
}

/// One thing that is wrong: where, in which field, what, and the cure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The configuration file.
    pub file: PathBuf,
    /// Where in it.
    pub at: Mark,
    /// The path of the field, as in `listeners[0].http.routes[1].cluster`. Empty for the whole file.
    pub field: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file.display(), self.at.line, self.at.column)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// All that is wrong. Never empty when it is returned as an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// `value`, when nothing is wrong.
    ///
    /// # Errors
    /// Itself, in the order of the file, when something is.
    pub fn or<T>(mut self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            return Ok(value);
        }
        self.0.sort_by_key(|a| a.at);
        Err(self)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            let newline = if at == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// `; did you mean ...?` when one of `known` is close to `wrong`, else the list of what is known.
pub fn suggest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let close = known.iter().map(|word| (distance(wrong, word), word)).min();
    match close {
        Some((distance, word)) if distance <= 1 + word.chars().count() / 3 => {
            format!("; did you mean `{word}`?")
        }
        Some(_) if known.len() <= 24 => format!("; known: {}", known.join(", ")),
        Some(_) | None => String::new(),
    }
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(&b) {
            let change = diagonal + usize::from(from != *to);
            diagonal = *cell;
            *cell = change.min(diagonal + 1).min(left + 1);
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_suggested_and_otherwise_what_is_known_is_listed() {
        assert_eq!(suggest("ap1", ["web", "api"]), "; did you mean `api`?");
        assert_eq!(suggest("zebra", ["web", "api"]), "; known: web, api");
        assert_eq!(suggest("zebra", []), "");
    }

    #[test]
    fn distances_are_counted_in_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("listner", "listener"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
