//! Guests that mean harm, each built from source, with how it is provoked and what is to come of it.
//!
//! They are for the neighbour check (`soak`), in Weir and in Envoy alike: only what both know is imported. What is
//! said of each is of the guest alone; that nobody else feels it is what the check shows.

mod allocators;
mod arguments;
mod callbacks;
mod floods;
mod messages;
mod resources;
mod starts;
pub mod text;

use text::Text;
use weir::plugin::{queues, space};

/// A guest that means harm.
#[derive(Debug, Clone)]
pub struct Hostile {
    /// Its name, in tables.
    pub name: String,
    /// The module, in WebAssembly's own text.
    pub wat: String,
    /// How it is provoked.
    pub way: Way,
    /// What is to come of it.
    pub outcome: Outcome,
    /// Whether its calls give way (`scheduling: preemptible`), where the proxy knows that.
    pub preemptible: bool,
}

/// How a guest is provoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By requests with a body and trailers, on a listener with routes: it is an HTTP filter.
    Requests,
    /// By connections: it is a network filter.
    Connections,
    /// By being copied over a version that serves, again and again.
    Copies,
}

/// What is to come of a guest in Weir.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Calls of it end in faults.
    Faults,
    /// It is refused, and the version before it goes on.
    Refused,
    /// It is borne: its requests may end in anything, and no fault is asked for.
    Borne,
}

impl Hostile {
    fn new(name: impl Into<String>, way: Way, outcome: Outcome, text: &Text) -> Self {
        Self { name: name.into(), wat: text.to_string(), way, outcome, preemptible: false }
    }

    fn preemptible(self) -> Self {
        Self { preemptible: true, ..self }
    }

    /// The module.
    ///
    /// # Panics
    /// When it is none: a mistake of this module's.
    pub fn wasm(&self) -> Vec<u8> {
        wat::parse_str(&self.wat).unwrap_or_else(|error| panic!("{}: {error}\n{}", self.name, self.wat))
    }

    /// What Weir's quotas let its shared data and its queues keep, in bytes: they are there for whoever comes after it.
    pub fn may_keep(&self) -> usize {
        let calls = |name: &str| self.wat.contains(&format!("(call ${name} "));
        let most = [
            ("proxy_set_shared_data", space::MOST_BYTES),
            ("proxy_enqueue_shared_queue", queues::MOST_BYTES_OF_SCOPE),
        ];
        most.iter().filter(|(name, _)| calls(name)).map(|(_, most)| most).sum()
    }
}

/// All of them.
pub fn all() -> Vec<Hostile> {
    [
        callbacks::all(),
        starts::all(),
        allocators::all(),
        resources::all(),
        arguments::all(),
        floods::all(),
        messages::all(),
    ]
    .concat()
}

/// One of them.
///
/// # Panics
/// When there is none of that name.
pub fn named(name: &str) -> Hostile {
    all().into_iter().find(|guest| guest.name == name).unwrap_or_else(|| panic!("no hostile guest {name}"))
}

/// One that means no harm, where somebody else does.
pub fn harmless() -> Hostile {
    Hostile::new("harmless", Way::Requests, Outcome::Borne, &calm_text())
}

/// A guest that does nothing but see each request and mark its response: what neighbours have in their chains.
pub fn calm() -> Vec<u8> {
    harmless().wasm()
}

fn calm_text() -> Text {
    let mut text = Text::default();
    let (key, value) = (text.data(b"x-calm"), text.data(b"yes"));
    text.on(
        "proxy_on_response_headers",
        format!("(drop (call $proxy_add_header_map_value (i32.const 2) {key} {value}))"),
    );
    text
}
