//! The section `name` of a module, with what a backtrace shows of it and no more.
//!
//! Compilers write the names of functions in full: a hash for each, the path of each type and of each parameter of it. Of a
//! small filter that is a fifth. [`shorten`] writes them as one reads them, `greet::who_it_is` and `<Greet as
//! HttpFilter>::on_request_headers`, and leaves out the names of locals, globals and segments, which no backtrace has.
//! Who builds plugins calls it, `weir plugin build` and `cargo xtask build`, as the last step.

mod name;

use anyhow::Context;
use wasmparser::{KnownCustom, Name, NameSectionReader, Parser, Payload};

pub use name::short;

/// The subsection of the module's own name, and that of the functions' (the Core Specification, appendix 7.4.1).
const MODULE: u8 = 0;
const FUNCTIONS: u8 = 1;

/// The module with shorter names. It does what it did: nothing but the section `name` is written anew.
///
/// # Errors
/// When it is no module, or its names cannot be read.
pub fn shorten(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(module.len());
    let mut copied = 0;
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.context("the module cannot be read")?;
        let Some((id, content)) = payload.as_section() else { continue };
        let from = std::mem::replace(&mut copied, content.end);
        let Payload::CustomSection(custom) = &payload else {
            out.extend_from_slice(module.get(from..content.end).unwrap_or_default());
            continue;
        };
        if let KnownCustom::Name(names) = custom.as_known() {
            // What stands between two sections is the head of the second one.
            let before = if from == 0 { module.get(..8).unwrap_or_default() } else { &[] };
            out.extend_from_slice(before);
            out.push(id);
            let mut section = text(custom.name());
            section.extend(of_functions(names)?);
            out.extend(sized(&section));
        } else {
            out.extend_from_slice(module.get(from..content.end).unwrap_or_default());
        }
    }
    Ok(out)
}

/// The bytes of a module that are names of functions, with the section around them.
#[must_use]
pub fn size(module: &[u8]) -> usize {
    let payloads = Parser::new(0).parse_all(module).map_while(Result::ok);
    let sizes = payloads.filter_map(|payload| {
        let Payload::CustomSection(section) = payload else { return None };
        (section.name() == "name").then(|| section.range().len())
    });
    sizes.sum()
}

/// The subsections that stay.
fn of_functions(names: NameSectionReader<'_>) -> anyhow::Result<Vec<u8>> {
    const UNREADABLE: &str = "the names of the module's functions cannot be read";
    let mut out = Vec::new();
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

/// A text, with its length before it.
fn text(text: &str) -> Vec<u8> {
    sized(text.as_bytes())
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    let mut out = number(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(bytes);
    out
}

/// LEB128, seven bits a byte (the Core Specification, 5.2.2).
fn number(mut value: u32) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}
