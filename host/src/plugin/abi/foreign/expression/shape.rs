//! How large and how deep an expression may be, and what may be in it.
//!
//! Parser and evaluator call themselves for every level. So what makes levels is counted in the text before it is
//! parsed, and the tree is measured before it is kept. Loops (`all`, `exists`, `map`, `filter`) are refused: their cost
//! is that of what is in them, as often as a list or a header map is long, and nothing bounds them from outside.

use std::collections::HashMap;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};
use regex::bytes::{Regex, RegexBuilder};

/// Brackets that may be open at once.
pub const MOST_NESTED: u16 = 24;

/// The length of an expression in bytes, and what it may have of everything that makes a level.
const MOST_BYTES: usize = 4 << 10;
const MOST_MARKS: usize = 512;

/// The parts of a tree, and the levels of it.
const MOST_PARTS: usize = 512;
const MOST_LEVELS: usize = 64;

/// The patterns of an expression, and the memory of each.
const MOST_PATTERNS: usize = 16;
const PATTERN_BYTES: usize = 16 << 10;
const CACHE_BYTES: usize = 64 << 10;

/// Whether a text can be given to the parser. Texts in it do not count, as far as they are simple ones.
pub fn is_modest(text: &str) -> bool {
    let (mut rest, mut marks) = (text, 0);
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        let next = rest.get(c.len_utf8()..).unwrap_or_default();
        let quoted = matches!(c, '\'' | '"') && !before.is_ascii_alphanumeric() && !next.starts_with(c);
        // One with escapes is counted like everything else: too much rather than too little.
        let end = if quoted {
            next.find([c, '\\', '\n']).filter(|end| next.get(*end..).is_some_and(|n| n.starts_with(c)))
        } else {
            None
        };
        if let Some(end) = end {
            rest = next.get(end + 1..).unwrap_or_default();
        } else {
            marks += usize::from(!c.is_ascii_alphanumeric() && !matches!(c, '_' | ' '));
            rest = next;
        }
        before = c;
    }
    text.len() <= MOST_BYTES && marks <= MOST_MARKS
}

/// Measures a tree; its patterns, when it can be kept.
pub fn examine(tree: &IdedExpr) -> Option<HashMap<String, Regex>> {
    let mut patterns = HashMap::new();
    let (mut waiting, mut parts) = (vec![(tree, 1)], 0);
    while let Some((part, level)) = waiting.pop() {
        parts += 1;
        if parts > MOST_PARTS || level > MOST_LEVELS {
            return None;
        }
        let mut below = |part| waiting.push((part, level + 1));
        match &part.expr {
            Expr::Ident(_) | Expr::Literal(_) => {}
            Expr::Select(select) => below(&select.operand),
            Expr::List(list) => list.elements.iter().for_each(below),
            Expr::Map(map) => map.entries.iter().for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    below(&entry.key);
                    below(&entry.value);
                }
                EntryExpr::StructField(field) => below(&field.value),
            }),
            Expr::Call(call) => {
                if call.func_name == "matches" {
                    let Expr::Literal(LiteralValue::String(pattern)) = &call.args.last()?.expr else {
                        return None;
                    };
                    let pattern = pattern.inner();
                    patterns.insert(pattern.to_owned(), compiled(pattern)?);
                }
                call.target.as_deref().into_iter().chain(&call.args).for_each(below);
            }
            // There are no types to make values of.
            Expr::Struct(_) | Expr::Comprehension(_) | Expr::Unspecified => return None,
        }
        if patterns.len() > MOST_PATTERNS {
            return None;
        }
    }
    Some(patterns)
}

/// Classes as `\w` are ASCII's, as in RE2; those of Unicode are large.
fn compiled(pattern: &str) -> Option<Regex> {
    let mut builder = RegexBuilder::new(pattern);
    builder.unicode(false).size_limit(PATTERN_BYTES).dfa_size_limit(CACHE_BYTES).build().ok()
}

#[cfg(test)]
mod tests {
    use cel::parser::Parser;

    use super::*;

    fn is_kept(text: &str) -> bool {
        let parse = || Parser::default().max_recursion_depth(MOST_NESTED).parse(text).ok();
        is_modest(text) && parse().is_some_and(|tree| examine(&tree).is_some())
    }

    #[test]
    fn what_is_deep_long_or_a_loop_is_not_kept() {
        assert!(is_kept(&format!("{}1{}", "(".repeat(20), ")".repeat(20))));
        assert!(is_kept(&["request.path == '/a'"; 60].join(" || ")));
        assert!(is_kept(&["1"; 60].join(" + ")));
        let wrong = [
            format!("{}1{}", "(".repeat(30), ")".repeat(30)),
            "(".repeat(10_000),
            "-".repeat(600) + "1",
            ["1"; 200].join("+"),
            ["a"; 200].join("."),
            ["a"; 200].join(" in "),
            "a ? b : ".repeat(100) + "c",
            format!("'{}'", "x".repeat(MOST_BYTES)),
            "[1, 2].map(x, [1, 2].map(y, x + y))".to_owned(),
            "[1, 2].exists(x, x == 1)".to_owned(),
            "a.b{c: 1}".to_owned(),
            "a.matches(b)".to_owned(),
            "a.matches('(')".to_owned(),
            r"a.matches('(\\w{1000}){1000}')".to_owned(),
        ];
        for text in &wrong {
            assert!(!is_kept(text), "{}", text.get(..60).unwrap_or(text));
        }
    }

    #[test]
    fn texts_do_not_count_as_long_as_it_is_plain_where_they_end() {
        assert!(is_modest(&format!("a == '{}'", "/".repeat(1000))));
        for text in ["'''", r"r'\'", r"'\''", r#"""""#] {
            assert!(!is_modest(&format!("{text}{}", "(".repeat(600))), "{text}");
        }
    }
}
