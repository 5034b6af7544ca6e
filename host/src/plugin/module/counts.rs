//! How much there is in a module: counted before anything is compiled, by what its sections say.

use wasmparser::{Parser, Payload};

use crate::plugin::module::Refusal;

/// Functions of one plugin when nothing else is configured. Large ones in Go have 10,000 to 50,000.
pub const MOST_FUNCTIONS: u32 = 200_000;

/// The other entries of each kind: types, imports, globals, exports, segments. The largest that are known have some
/// thousands; each of them takes memory in Weir itself, for as long as the plugin is loaded.
const MOST_ENTRIES: u32 = 100_000;

/// The code of one function, in bytes: what compiling takes grows faster than that.
const MOST_OF_FUNCTION: u32 = 4 << 20;

/// Refuses a module that has more of something than plugins may have. One that does not parse is not refused here: the
/// compiler says what is wrong with it.
///
/// # Errors
/// [`Refusal::TooMany`] or [`Refusal::LargeFunction`].
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the sections that are of interest here, of all that there are"
)]
pub fn check(bytes: &[u8], functions: u32) -> Result<(), Refusal> {
    for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
        let (count, what, most) = match payload {
            Payload::FunctionSection(section) => (section.count(), "functions", functions),
            Payload::CodeSectionStart { count, .. } => (count, "functions", functions),
            Payload::TypeSection(section) => (section.count(), "types", MOST_ENTRIES),
            Payload::ImportSection(section) => (section.count(), "imports", MOST_ENTRIES),
            Payload::GlobalSection(section) => (section.count(), "globals", MOST_ENTRIES),
            Payload::ExportSection(section) => (section.count(), "exports", MOST_ENTRIES),
            Payload::ElementSection(section) => (section.count(), "element segments", MOST_ENTRIES),
            Payload::DataSection(section) => (section.count(), "data segments", MOST_ENTRIES),
            Payload::CodeSectionEntry(body) => {
                let size = body.range().len();
                if size > MOST_OF_FUNCTION as usize {
                    return Err(Refusal::LargeFunction { size, most: MOST_OF_FUNCTION });
                }
                continue;
            }
            _ => continue,
        };
        if count > most {
            return Err(Refusal::TooMany { what, count, most });
        }
    }
    Ok(())
}
