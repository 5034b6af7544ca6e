//! What a plugin asks for, as it says itself: in a custom section of its file, in the words of `grants`.
//!
//! It only ever asks. Nothing here grants anything; it is for those who write the configuration.

use std::path::Path;

use wasmparser::{Parser, Payload};

use crate::config::grants::{Access, Grants};
use crate::config::section::{Context, Read};
use crate::config::yaml::Node;

/// The name of the section. It is JSON: `{ "grants": { "clusters": ["authority"], "headers": "read" } }`, beside which
/// a plugin may say other things of itself.
pub const SECTION: &str = weir_abi::PLUGIN_SECTION;

/// The longest section that is read, in bytes.
const LONGEST: usize = 64 << 10;

/// What a plugin asks for.
#[derive(Debug)]
pub struct Requests {
    asked: Grants,
    /// The fields that it names. One that it does not name it has no opinion on.
    named: Vec<String>,
}

impl Requests {
    /// What the bytes of a module ask for; `None` when they do not say.
    ///
    /// # Errors
    /// Why the section cannot be read.
    pub fn of(bytes: &[u8]) -> Result<Option<Self>, String> {
        let mut payloads = Parser::new(0).parse_all(bytes).map_while(Result::ok);
        let section = payloads.find_map(|payload| {
            let Payload::CustomSection(section) = payload else { return None };
            (section.name() == SECTION).then(|| section.data())
        });
        let Some(section) = section else { return Ok(None) };
        if section.len() > LONGEST {
            return Err(format!("its section `{SECTION}` is longer than {LONGEST} bytes"));
        }
        let wrong = |why: &str| format!("its section `{SECTION}` cannot be read: {why}");
        let text = str::from_utf8(section).map_err(|_| wrong("it is no text"))?;
        let root = Node::parse(text).map_err(|(_, why)| wrong(&why))?;
        let Some(grants) = root.get("grants") else { return Ok(None) };
        let mut cx = Context::new(Path::new(SECTION));
        let asked = Grants::read(grants, &mut cx);
        let problems = cx.finish();
        if let Some(problem) = problems.0.first() {
            return Err(wrong(&problem.message));
        }
        let names = Self::FIELDS.iter().filter(|name| grants.get(name).is_some());
        Ok(asked.map(|asked| Self { asked, named: names.map(|name| (*name).to_owned()).collect() }))
    }

    const FIELDS: [&str; 9] = [
        "clusters",
        "shared_data",
        "environment",
        "foreign_functions",
        "headers",
        "body",
        "properties",
        "reply",
        "route",
    ];

    /// What it asks for and `granted` does not have, as it would stand in `grants`.
    pub fn missing(&self, granted: Option<&Grants>) -> Vec<String> {
        self.named.iter().filter_map(|field| self.missing_of(field, granted)).collect()
    }

    fn missing_of(&self, field: &str, granted: Option<&Grants>) -> Option<String> {
        let names = |asked: Vec<&str>, granted: Option<Vec<&str>>| {
            let granted = granted.unwrap_or_default();
            let missing: Vec<&str> = asked.into_iter().filter(|name| !granted.contains(name)).collect();
            (!missing.is_empty()).then(|| format!("{field}: [{}]", missing.join(", ")))
        };
        let access = |asked: Access, granted: Option<Access>| {
            let short = granted.is_none_or(|granted| rank(granted) < rank(asked));
            short.then(|| format!("{field}: {}", asked.word()))
        };
        let flag = |asked: bool, granted: Option<bool>| {
            (asked && !granted.unwrap_or(false)).then(|| format!("{field}: true"))
        };
        let asked = &self.asked;
        match field {
            "clusters" => names(clusters(asked), granted.map(clusters)),
            "shared_data" => names(texts(&asked.shared_data), granted.map(|g| texts(&g.shared_data))),
            "environment" => names(texts(&asked.environment), granted.map(|g| texts(&g.environment))),
            "foreign_functions" => names(functions(asked), granted.map(functions)),
            "headers" => access(asked.headers, granted.map(|g| g.headers)),
            "body" => access(asked.body, granted.map(|g| g.body)),
            "properties" => access(asked.properties, granted.map(|g| g.properties)),
            "reply" => flag(asked.reply, granted.map(|g| g.reply)),
            _ => flag(asked.route, granted.map(|g| g.route)),
        }
    }
}

fn clusters(grants: &Grants) -> Vec<&str> {
    grants.clusters.iter().map(|name| name.as_str()).collect()
}

fn texts(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn functions(grants: &Grants) -> Vec<&str> {
    grants.foreign_functions.iter().map(|function| function.word()).collect()
}

const fn rank(access: Access) -> u8 {
    match access {
        Access::None => 0,
        Access::Read => 1,
        Access::Write => 2,
    }
}
