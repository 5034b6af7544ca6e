//! Header values with properties in them.

use weir_sdk::{Error, Result, properties};

/// A value as it is configured.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Value(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// The segments of a property's path.
    Property(Vec<String>),
}

impl Value {
    /// Reads `text %{property.path} text`. `%%` stands for a percent sign.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            plain.push_str(before);
            if let Some(after) = after.strip_prefix('%') {
                plain.push('%');
                rest = after;
                continue;
            }
            let Some(after) = after.strip_prefix('{') else {
                let message =
                    format!("`{text}`: write `%%` for a percent sign, or `%{{name}}` for a property");
                return Err(Error::new(message));
            };
            let (path, after) = after
                .split_once('}')
                .ok_or_else(|| Error::new(format!("`{text}`: a `%{{` is not closed")))?;
            if path.is_empty() || path.split('.').any(str::is_empty) {
                return Err(Error::new(format!("`{text}`: `%{{{path}}}` names no property")));
            }
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Property(path.split('.').map(str::to_owned).collect()));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// The value with its properties looked up. One that the host does not know is empty.
    pub(crate) fn fill(&self) -> Result<Vec<u8>> {
        let mut filled = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.extend_from_slice(text.as_bytes()),
                Piece::Property(path) => {
                    let path: Vec<&str> = path.iter().map(String::as_str).collect();
                    filled.extend_from_slice(&property(&path)?);
                }
            }
        }
        Ok(filled)
    }
}

/// A property as text. Those that are numbers are written as numbers.
fn property(path: &[&str]) -> Result<Vec<u8>> {
    const NUMBERS: [&[&str]; 9] = [
        &["request", "size"],
        &["request", "total_size"],
        &["request", "time"],
        &["response", "code"],
        &["response", "size"],
        &["source", "port"],
        &["destination", "port"],
        &["upstream", "port"],
        &["connection", "id"],
    ];
    if NUMBERS.contains(&path) {
        return Ok(properties::number(path)?
            .map(|number| number.to_string())
            .unwrap_or_default()
            .into_bytes());
    }
    if path == ["connection", "mtls"] {
        return Ok(if properties::number(path)? == Some(1) { b"true".to_vec() } else { b"false".to_vec() });
    }
    Ok(properties::get(path)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    fn property(path: &[&str]) -> Piece {
        Piece::Property(path.iter().map(|&segment| segment.to_owned()).collect())
    }

    #[test]
    fn values_are_text_and_properties() {
        let parse = |text: &str| Value::parse(text).expect("a good value").0;
        assert_eq!(parse("plain"), [text("plain")]);
        assert_eq!(parse("100%%"), [text("100%")]);
        assert_eq!(
            parse("from %{source.address}, %{request.headers.x-a}!"),
            [
                text("from "),
                property(&["source", "address"]),
                text(", "),
                property(&["request", "headers", "x-a"]),
                text("!")
            ]
        );
        assert!(parse("").is_empty());
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| Value::parse(text).expect_err("refused").to_string();
        assert!(error("50%").contains("write `%%`"));
        assert!(error("%{a").contains("not closed"));
        assert!(error("%{}").contains("names no property"));
        assert!(error("%{a..b}").contains("names no property"));
    }
}
