//! The exports, without callbacks that nobody can ever call.

use std::collections::BTreeSet;

use anyhow::Context;
use wasmparser::{Export, ExportSectionReader, ImportSectionReader};

use crate::number;

/// Callbacks that answer what a module has asked for, and the host functions that it asks by.
const ANSWERS: [(&str, &[&str]); 7] = [
    ("proxy_on_http_call_response", &["proxy_http_call"]),
    ("proxy_on_grpc_receive_initial_metadata", GRPC),
    ("proxy_on_grpc_receive", GRPC),
    ("proxy_on_grpc_receive_trailing_metadata", GRPC),
    ("proxy_on_grpc_close", GRPC),
    ("proxy_on_tick", &["proxy_set_tick_period_milliseconds"]),
    ("proxy_on_queue_ready", &["proxy_register_shared_queue"]),
];

const GRPC: &[&str] = &["proxy_grpc_call", "proxy_grpc_stream"];

/// By which hosts allocate in a module, and what it may have for its own code, which they need not see then.
const ALLOCATE: &str = "proxy_on_memory_allocate";
const OWN: [&str; 6] = ["malloc", "free", "calloc", "realloc", "aligned_alloc", "posix_memalign"];

/// The names of what a module imports.
#[derive(Default)]
pub(crate) struct Imports<'a>(BTreeSet<&'a str>);

impl<'a> Imports<'a> {
    pub(crate) fn read(section: ImportSectionReader<'a>) -> anyhow::Result<Self> {
        let names = section.into_imports().map(|import| import.map(|import| import.name));
        Ok(Self(names.collect::<Result<_, _>>().context("the module's imports cannot be read")?))
    }
}

/// The content of the section, which is a part of `module`, with the exports that are wanted.
pub(crate) fn wanted(
    section: ExportSectionReader<'_>,
    imports: &Imports<'_>,
    module: &[u8],
) -> anyhow::Result<Vec<u8>> {
    let end = section.range().end;
    let exports = section.into_iter_with_offsets().collect::<Result<Vec<(usize, Export<'_>)>, _>>();
    let exports = exports.context("the module's exports cannot be read")?;
    let allocates = exports.iter().any(|(_, export)| export.name == ALLOCATE);
    let ends = exports.iter().skip(1).map(|(at, _)| *at).chain([end]);
    let is_wanted = |name: &str| {
        let answer = ANSWERS.iter().find(|(callback, _)| *callback == name);
        let can_come = answer.is_none_or(|(_, asks)| asks.iter().any(|ask| imports.0.contains(ask)));
        can_come && !(allocates && OWN.contains(&name))
    };
    let kept: Vec<&[u8]> = exports
        .iter()
        .zip(ends)
        .filter(|((_, export), _)| is_wanted(export.name))
        .filter_map(|((from, _), to)| module.get(*from..to))
        .collect();
    let mut out = number(u32::try_from(kept.len()).unwrap_or(u32::MAX));
    kept.into_iter().for_each(|export| out.extend_from_slice(export));
    Ok(out)
}
