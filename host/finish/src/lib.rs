//! What is done to a plugin when it has been built: what it does stays as it is, and it gets smaller.
//!
//! - The names of functions are written as one reads them, `greet::who_it_is` and `<Greet as HttpFilter>::on_request_headers`, and
//!   those of locals, globals and segments are left out, which no backtrace has. Compilers write a hash for each
//!   function, the path of each type and each parameter of it: of a small filter that is a fifth.
//! - Callbacks that nobody can ever call are not exported: the answer of a call, in a module that imports nothing to call by.
//!
//! Who builds plugins calls it as the last step, `weir plugin build` and `cargo xtask build`.

mod exports;
mod names;

use anyhow::Context;
use wasmparser::{KnownCustom, Parser, Payload};

use exports::Imports;
pub use names::short;

/// The finished module.
///
/// # Errors
/// When it is no module, or what is written anew cannot be read.
pub fn finish(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    let (mut out, mut copied, mut imports) = (Vec::with_capacity(module.len()), 0, Imports::default());
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.context("the module cannot be read")?;
        if let Payload::ImportSection(section) = &payload {
            imports = Imports::read(section.clone())?;
        }
        let Some((id, content)) = payload.as_section() else { continue };
        // What stands between two sections is the head of the second one.
        let from = std::mem::replace(&mut copied, content.end);
        match anew(&payload, &imports, module)? {
            Some(section) => {
                out.extend_from_slice(if from == 0 { module.get(..8).unwrap_or_default() } else { &[] });
                out.push(id);
                out.extend(sized(&section));
            }
            None => out.extend_from_slice(module.get(from..content.end).unwrap_or_default()),
        }
    }
    Ok(out)
}

/// The content of a section that does not stay as it is.
fn anew(payload: &Payload<'_>, imports: &Imports<'_>, module: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    if let Payload::ExportSection(section) = payload {
        return exports::wanted(section.clone(), imports, module).map(Some);
    }
    if let Payload::CustomSection(section) = payload
        && let KnownCustom::Name(names) = section.as_known()
    {
        return names::shortened(section.name(), names).map(Some);
    }
    Ok(None)
}

/// The bytes of a module that are names of functions, with the section around them.
#[must_use]
pub fn size_of_names(module: &[u8]) -> usize {
    let payloads = Parser::new(0).parse_all(module).map_while(Result::ok);
    let sizes = payloads.filter_map(|payload| {
        let Payload::CustomSection(section) = payload else { return None };
        (section.name() == "name").then(|| section.range().len())
    });
    sizes.sum()
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

#[cfg(test)]
mod tests;
