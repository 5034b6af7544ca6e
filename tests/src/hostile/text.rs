//! A module in WebAssembly's own text: callbacks with bodies, and all that they need.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter, Result};

use crate::trampoline::{FUNCTIONS, Kind, Signature};

/// A callback of the tables: its name, how many parameters it has, and whether it answers.
type Callback = (&'static str, usize, bool);

macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ident),* $(,)?) -> $result:tt;)*) => {
        const CALLBACKS: &[Callback] = &[
            $((stringify!($name), [$(stringify!($arg)),*].len(), matches!(stringify!($result).as_bytes(), b"Int")),)*
            ("_initialize", 0, false),
            ("_start", 0, false),
        ];
    };
}

weir_abi::callbacks!(rows);

/// Where texts begin.
const TEXTS: usize = 0x1000;
/// Where results of host functions go.
pub const OUT: &str = "(i32.const 0x100) (i32.const 0x108)";
/// Where the allocator gives memory from, and where it begins anew.
const HEAP: (usize, usize) = (0x20000, 0x120000);

/// A module that is being written.
#[derive(Debug, Clone)]
pub struct Text {
    /// Pages of memory that it has at first.
    pub pages: usize,
    /// The body of its allocator, which is given `$len`.
    pub malloc: String,
    /// Imports that are not in the tables.
    pub imports: String,
    /// What stands beside the callbacks.
    pub beside: String,
    pub(super) bodies: BTreeMap<&'static str, String>,
    pub(super) texts: Vec<u8>,
}

impl Default for Text {
    fn default() -> Self {
        // A ring: a guest that lives long needs no more than this.
        let malloc = format!(
            "(global.set $heap (i32.add (global.get $heap) (local.get $len)))
             (if (i32.gt_u (global.get $heap) (i32.const {})) (then
                (global.set $heap (i32.add (i32.const {}) (local.get $len)))))
             (i32.sub (global.get $heap) (local.get $len))",
            HEAP.1, HEAP.0
        );
        let (imports, beside) = (String::new(), String::new());
        Self { pages: HEAP.1 >> 16, malloc, imports, beside, bodies: BTreeMap::new(), texts: Vec::new() }
    }
}

impl Text {
    /// Has a callback do something; what it did before it does first.
    ///
    /// # Panics
    /// When there is no such callback.
    pub fn on(&mut self, callback: &str, body: impl AsRef<str>) -> &mut Self {
        let known = CALLBACKS.iter().find(|(name, ..)| *name == callback);
        let (name, ..) = known.unwrap_or_else(|| panic!("no callback {callback}"));
        self.bodies.entry(name).or_default().push_str(body.as_ref());
        self
    }

    /// Puts bytes into memory, and writes their address and length as arguments.
    ///
    /// # Panics
    /// When there is no more room.
    pub fn data(&mut self, bytes: &[u8]) -> String {
        let at = TEXTS + self.texts.len();
        self.texts.extend_from_slice(bytes);
        assert!(TEXTS + self.texts.len() <= HEAP.0, "there is room for texts");
        format!("(i32.const {at}) (i32.const {})", bytes.len())
    }

    /// Puts a serialised map into memory, and writes its address and length as arguments.
    pub fn map(&mut self, pairs: &[(&str, &str)]) -> String {
        let mut bytes = Vec::new();
        weir_abi::encode_pairs(|| pairs.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())), &mut bytes);
        self.data(&bytes)
    }
}

impl Display for Text {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut functions = String::new();
        for (name, body) in &self.bodies {
            let known = CALLBACKS.iter().find(|(known, ..)| known == name);
            let &(_, params, answers) = known.expect("it was looked up before");
            // To start, to be configured and to end is agreed to; other answers go on.
            let agrees = ["proxy_on_vm_start", "proxy_on_configure", "proxy_on_done"].contains(name);
            let answer = match answers {
                true if agrees => "(i32.const 1)",
                true => "(i32.const 0)",
                false => "",
            };
            functions.push_str(&export(name, params, answers, &format!("{body} {answer}")));
        }
        let code = format!("{functions}{}{}", self.beside, self.malloc);
        writeln!(f, "(module {}", self.imports)?;
        let used = |function: &&Signature| code.contains(&format!("${} ", function.name));
        f.write_str(&FUNCTIONS.iter().filter(used).map(import).collect::<String>())?;
        let texts: String = self.texts.iter().map(|byte| format!("\\{byte:02x}")).collect();
        writeln!(
            f,
            "(memory (export \"memory\") {})
             (global $heap (mut i32) (i32.const {}))
             (global $i (mut i32) (i32.const 0))
             (global $count (mut i32) (i32.const 0))
             (global $since (mut i64) (i64.const 0))
             (data (i32.const {TEXTS}) \"{texts}\")
             (func (export \"proxy_abi_version_0_2_1\"))
             (func (export \"malloc\") (param $len i32) (result i32) {})
             {}{functions})",
            self.pages, HEAP.0, self.malloc, self.beside
        )
    }
}

/// The export of a callback that answers, or does not, with a body.
fn export(name: &str, params: usize, answers: bool, body: &str) -> String {
    let (params, result) = ("i32 ".repeat(params), if answers { "(result i32)" } else { "" });
    format!("(func (export \"{name}\") (param {params}) {result} {body})\n")
}

/// The import of a function of the tables.
fn import(function: &Signature) -> String {
    let long = |kind: &Kind| matches!(kind, Kind::Long | Kind::Delta);
    let types: String = function.params.iter().map(|kind| if long(kind) { "i64 " } else { "i32 " }).collect();
    let Signature { module, name, .. } = function;
    format!("(import \"{module}\" \"{name}\" (func ${name} (param {types}) (result i32)))\n")
}

/// A module that has every import of the tables.
pub fn every_import() -> String {
    format!("(module {})", FUNCTIONS.iter().map(import).collect::<String>())
}

/// A module that exports what every plugin does, and the callbacks that are wanted.
pub fn exporting(mut wanted: impl FnMut(&str) -> bool) -> String {
    let callbacks = CALLBACKS.iter().filter(|(name, ..)| wanted(name));
    let callbacks: String =
        callbacks.map(|&(name, params, answers)| export(name, params, answers, "unreachable")).collect();
    let marker = export("proxy_abi_version_0_2_1", 0, false, "");
    let malloc = export("malloc", 1, true, "unreachable");
    format!("(module (memory (export \"memory\") 1 64) {marker}{malloc}{callbacks})")
}

/// Something for ever.
pub fn forever(body: &str) -> String {
    format!("(loop $again {body} (br $again))")
}

/// Something so often.
pub fn times(count: usize, body: &str) -> String {
    format!(
        "(global.set $i (i32.const {count}))
         (loop $again {body}
            (global.set $i (i32.sub (global.get $i) (i32.const 1)))
            (br_if $again (global.get $i)))"
    )
}

/// Work for so many microseconds, by the host's clock.
pub fn work_for(microseconds: u64) -> String {
    let clock = "(drop (call $proxy_get_current_time_nanoseconds (i32.const 0x110)))";
    format!(
        "{clock} (global.set $since (i64.load (i32.const 0x110)))
         (loop $again {clock}
            (br_if $again (i64.lt_u (i64.sub (i64.load (i32.const 0x110)) (global.get $since))
                (i64.const {}))))",
        microseconds * 1000
    )
}

/// A number that no call before this had, as 16 letters at `at`: of the host's clock, and counted.
pub fn fresh_name(at: usize) -> String {
    // Each half byte becomes a letter from `a` on.
    let letters = (0..16).map(|place| {
        format!(
            "(i32.store8 (i32.const {}) (i32.add (i32.const 97)
                (i32.wrap_i64 (i64.and (i64.shr_u (global.get $since) (i64.const {})) (i64.const 15)))))",
            at + place,
            place * 4
        )
    });
    format!(
        "(if (i64.eqz (global.get $since)) (then
            (drop (call $proxy_get_current_time_nanoseconds (i32.const 0x110)))
            (global.set $since (i64.load (i32.const 0x110)))))
         (global.set $since (i64.add (global.get $since) (i64.const 1)))
         {}",
        letters.collect::<String>()
    )
}
