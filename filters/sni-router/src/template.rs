//! Templates: names with placeholders, read and filled.

use std::collections::BTreeMap;

use weir_sdk::{Error, Result};

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Placeholder(String),
}

/// Splits `a{b}c` into its pieces.
fn pieces(text: &str) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) =
            after.split_once('}').ok_or_else(|| Error::new(format!("`{text}`: a `{{` is not closed")))?;
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(Error::new(format!(
                "`{text}`: `{{{name}}}` is not a placeholder; use letters and digits"
            )));
        }
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        pieces.push(Piece::Placeholder(name.to_owned()));
        rest = after;
    }
    if rest.contains('}') {
        return Err(Error::new(format!("`{text}`: a `}}` was not opened")));
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

/// A template that names are read by. A placeholder stands for one or more characters, but never for a dot.
#[derive(Debug)]
pub(crate) struct Pattern(Vec<Piece>);

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut pieces = pieces(text)?;
        for piece in &mut pieces {
            if let Piece::Text(text) = piece {
                // Server names are compared in lower case.
                text.make_ascii_lowercase();
            }
        }
        for pair in pieces.windows(2) {
            if let [Piece::Placeholder(a), Piece::Placeholder(b)] = pair {
                let message =
                    format!("`{text}`: nothing tells `{{{a}}}` from `{{{b}}}`; put text between them");
                return Err(Error::new(message));
            }
        }
        Ok(Self(pieces))
    }

    /// The placeholders.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.0
            .iter()
            .filter_map(|piece| match piece {
                Piece::Placeholder(name) => Some(name.as_str()),
                Piece::Text(_) => None,
            })
            .collect()
    }

    /// What the placeholders stand for in `name`; `None` when it does not fit.
    pub(crate) fn read<'a>(&self, name: &'a str) -> Option<BTreeMap<&str, &'a str>> {
        let mut values = BTreeMap::new();
        read(&self.0, name, &mut values).then_some(values)
    }
}

/// Matches the pieces one by one. A placeholder takes as little as it can.
fn read<'p, 'a>(pieces: &'p [Piece], name: &'a str, values: &mut BTreeMap<&'p str, &'a str>) -> bool {
    match pieces {
        [] => name.is_empty(),
        [Piece::Text(text), rest @ ..] => {
            name.strip_prefix(text.as_str()).is_some_and(|name| read(rest, name, values))
        }
        [Piece::Placeholder(placeholder), rest @ ..] => {
            let longest = name.find('.').unwrap_or(name.len());
            (1..=longest).any(|len| {
                let Some((value, after)) = name.split_at_checked(len) else { return false };
                if values.get(placeholder.as_str()).is_some_and(|before| *before != value) {
                    return false;
                }
                let added = values.insert(placeholder, value).is_none();
                let matched = read(rest, after, values);
                if !matched && added {
                    values.remove(placeholder.as_str());
                }
                matched
            })
        }
    }
}

/// A template that is filled with values.
#[derive(Debug)]
pub(crate) struct Template(Vec<Piece>);

impl Template {
    /// Reads a template whose placeholders must be among `known`.
    pub(crate) fn parse(text: &str, known: Vec<&str>) -> Result<Self> {
        let pieces = pieces(text)?;
        for piece in &pieces {
            if let Piece::Placeholder(name) = piece
                && !known.contains(&name.as_str())
            {
                let message =
                    format!("`{text}`: `{{{name}}}` is not in the template; it has {}", known.join(", "));
                return Err(Error::new(message));
            }
        }
        Ok(Self(pieces))
    }

    /// The template with its placeholders replaced.
    pub(crate) fn fill(&self, values: &BTreeMap<&str, &str>) -> String {
        let fill = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Placeholder(name) => values.get(name.as_str()).copied().unwrap_or_default().to_owned(),
        };
        self.0.iter().map(fill).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(pattern: &str, template: &str, name: &str) -> Option<String> {
        let pattern = Pattern::parse(pattern).expect("a pattern");
        let template = Template::parse(template, pattern.names()).expect("a template");
        pattern.read(name).map(|values| template.fill(&values))
    }

    #[test]
    fn placeholders_stand_for_labels_and_parts_of_labels() {
        assert_eq!(fill("{a}.x", "{a}", "one.x").as_deref(), Some("one"));
        assert_eq!(fill("{a}-{b}.x", "{b}/{a}", "one-two-three.x").as_deref(), Some("two-three/one"));
        assert_eq!(fill("{a}.{a}", "{a}", "one.one").as_deref(), Some("one"));
        assert_eq!(fill("{a}.{a}", "{a}", "one.two"), None);
        assert_eq!(fill("{a}.x", "{a}", ".x"), None, "a placeholder is never empty");
        assert_eq!(fill("{a}.x", "{a}", "one.two.x"), None, "nor does it hold a dot");
        assert_eq!(fill("x", "fixed", "x").as_deref(), Some("fixed"));
    }

    #[test]
    fn mistakes_are_named() {
        let message = |text| Pattern::parse(text).expect_err("a mistake").to_string();
        assert!(message("{a").contains("not closed"));
        assert!(message("a}").contains("not opened"));
        assert!(message("{}").contains("not a placeholder"));
        assert!(message("{a}{b}").contains("put text between"));
    }
}
