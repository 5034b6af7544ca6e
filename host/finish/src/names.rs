//! The section `name`, with what a backtrace shows of it and no more.

use anyhow::Context;
use wasmparser::{Name, NameSectionReader};

use crate::{number, sized, text};

/// The subsection of the module's own name, and that of the functions' (the Core Specification, appendix 7.4.1).
const MODULE: u8 = 0;
const FUNCTIONS: u8 = 1;

/// The content of the section, whose own name is given.
pub(crate) fn shortened(section: &str, names: NameSectionReader<'_>) -> anyhow::Result<Vec<u8>> {
    const UNREADABLE: &str = "the names of the module's functions cannot be read";
    let mut out = text(section);
    for names in names {
        match names.context(UNREADABLE)? {
            Name::Module { name, .. } => {
                out.push(MODULE);
                out.extend(sized(&text(name)));
            }
            Name::Function(functions) => {
                let mut map = number(functions.count());
                for function in functions {
                    let function = function.context(UNREADABLE)?;
                    map.extend(number(function.index));
                    map.extend(text(&short(function.name)));
                }
                out.push(FUNCTIONS);
                out.extend(sized(&map));
            }
            Name::Local(_)
            | Name::Label(_)
            | Name::Type(_)
            | Name::Table(_)
            | Name::Memory(_)
            | Name::Global(_)
            | Name::Element(_)
            | Name::Data(_)
            | Name::Field(_)
            | Name::Tag(_)
            | Name::Unknown { .. } => {}
        }
    }
    Ok(out)
}

/// A function's name without what only a linker needs.
///
/// - It is demangled, and has no hash.
/// - In brackets the last part of each path stays: `<Greet as HttpFilter>::new`.
/// - Type parameters are left out, but of `drop_in_place`, which says nothing without: `Vec::push`.
///
/// What is no name of Rust's stays as it is.
#[must_use]
pub fn short(name: &str) -> String {
    match rustc_demangle::try_demangle(name) {
        // `{:#}` is without hashes.
        Ok(demangled) => without_parameters(&format!("{demangled:#}")),
        Err(_) => name.to_owned(),
    }
}

fn without_parameters(name: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(name.len()), name);
    while let Some((before, behind)) = rest.split_once('<') {
        out.push_str(before);
        let (inner, after) = bracket(behind);
        let begins = before.is_empty() && out.is_empty() || out.ends_with([' ', '(', '[', ',', '&']);
        if begins || inner.starts_with("impl ") {
            out.push_str(&begin(&without_parameters(inner), after.starts_with("::")));
        } else {
            out.truncate(out.trim_end_matches("::").len());
            if out == "core::ptr::drop_in_place" {
                out.push_str(&format!("<{}>", last_parts(&without_parameters(inner))));
            }
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// What is in a bracket that was just opened, and what is behind it.
fn bracket(text: &str) -> (&str, &str) {
    let mut open = 1;
    let mut before = ' ';
    for (at, letter) in text.char_indices() {
        match letter {
            '<' => open += 1,
            '>' if before != '-' => open -= 1,
            _ => {}
        }
        if open == 0 {
            let (inner, after) = text.split_at(at);
            return (inner, after.strip_prefix('>').unwrap_or(after));
        }
        before = letter;
    }
    (text, "")
}

/// What a path begins with: a type, or one as a trait. `leads`: a part follows.
fn begin(inner: &str, leads: bool) -> String {
    let is_path = inner.chars().all(is_of_path);
    if leads && is_path { inner.to_owned() } else { format!("<{}>", last_parts(inner)) }
}

fn is_of_path(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | ':' | '{' | '}' | '#')
}

/// Each path in a text by its last part, and those of closures by what they are in.
fn last_parts(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while !rest.is_empty() {
        let end = rest.find(|letter| !is_of_path(letter)).unwrap_or(rest.len());
        let (path, behind) = rest.split_at(end);
        // One that goes on behind a bracket begins with colons.
        out.push_str(if path.starts_with("::") { path } else { last_part(path) });
        let other = behind.find(is_of_path).unwrap_or(behind.len());
        let (between, next) = behind.split_at(other);
        out.push_str(between);
        rest = next;
    }
    out
}

fn last_part(path: &str) -> &str {
    let mut from = path.len();
    for (at, _) in path.rmatch_indices("::").chain([(0, "")]) {
        from = if at == 0 { 0 } else { at + 2 };
        if path.get(from..).is_some_and(|part| !part.starts_with('{')) {
            break;
        }
    }
    path.get(from..).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_one_reads_them() {
        for (whole, shown) in [
            ("greet::who_it_is", "greet::who_it_is"),
            ("<greet::Greet as weir_sdk::filter::HttpFilter>::new", "<Greet as HttpFilter>::new"),
            ("<greet::Greet>::name", "greet::Greet::name"),
            ("weir_sdk::by_id::ById<T>::grow", "weir_sdk::by_id::ById::grow"),
            (
                "<alloc::raw_vec::RawVecInner>::reserve::<alloc::alloc::Global>",
                "alloc::raw_vec::RawVecInner::reserve",
            ),
            ("<&mut [u8] as std::io::Write>::write", "<&mut [u8] as Write>::write"),
            ("<[u8]>::sort", "<[u8]>::sort"),
            ("core::ptr::drop_in_place::<alloc::vec::Vec<u8>>", "core::ptr::drop_in_place<Vec>"),
            ("core::ptr::drop_in_place<weir_sdk::reply::Reply>", "core::ptr::drop_in_place<Reply>"),
            (
                "a::b::<impl core::fmt::Debug for &mut a::Reader<'_>>::fmt",
                "a::b::<impl Debug for &mut Reader>::fmt",
            ),
            ("<fn(u8) -> a::B as core::ops::FnOnce<(u8,)>>::call_once", "<fn(u8) -> B as FnOnce>::call_once"),
            (
                "<a::b::{closure#0} as core::ops::FnOnce<()>>::call_once::{shim:vtable#0}",
                "<b::{closure#0} as FnOnce>::call_once::{shim:vtable#0}",
            ),
            ("<<a::A as a::B>::C as a::D>::e", "<<A as B>::C as D>::e"),
            (
                "std::sys::backtrace::short::<std::panicking::handler::{closure#0}, !>",
                "std::sys::backtrace::short",
            ),
            ("<", "<>"),
            ("a<b::c", "a"),
            ("->", "->"),
        ] {
            assert_eq!(without_parameters(whole), shown, "{whole}");
        }
    }

    #[test]
    fn hashes_go_in_both_ways_of_mangling_and_other_names_stay() {
        assert_eq!(
            short("_ZN8weir_sdk4json6Reader6string17h2b74892bc5447f5aE"),
            "weir_sdk::json::Reader::string"
        );
        assert_eq!(
            short("_RNvNtNtCset5xJoy1xWQ_3std9panicking12default_hook"),
            "_RNvNtNtCset5xJoy1xWQ_3std9panicking12default_hook"
        );
        assert_eq!(short("_RNvNtCset5xJoy1xWQ_3std9panicking12default_hook"), "std::panicking::default_hook");
        assert_eq!(short("dlmalloc"), "dlmalloc");
        assert_eq!(short("main.(*filter).OnHttpRequestHeaders"), "main.(*filter).OnHttpRequestHeaders");
    }
}
