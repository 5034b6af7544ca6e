//! The same plugin with the same traffic in Weir and in Envoy, and what came of it in words that can be compared.
//!
//! A [`Scenario`] says what happens; [`weir`] and [`envoy`] run it and return a transcript: what the client got, what
//! the upstreams saw, what the guests logged. What Envoy made of it is kept in `tests/parity/NAME.txt`; where Weir
//! differs on purpose, its own transcript stands beside in `NAME.weir.txt`, and the reason in `docs/compatibility.md`.

pub mod cases;
pub mod client;
pub mod envoy;
pub mod scenarios;
pub mod tls;
pub mod upstreams;
pub mod weir;

use std::path::PathBuf;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::parity::upstreams::Answer;

/// Who the proxy is, in every scenario.
pub static NODE: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "id": "node-1",
        "cluster": "nodes",
        "metadata": { "ENV": "test", "ports": [80, 443] },
        "locality": { "region": "r", "zone": "z", "sub_zone": "s" },
    })
});

/// The metadata of listener, route and cluster, in every scenario.
pub static METADATA: LazyLock<Value> = LazyLock::new(
    || json!({ "ns": { "text": "t", "number": 1.5, "yes": true, "list": ["a", "b"], "inner": { "k": "v" }, "null": null } }),
);

/// What happens.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name, which is also that of its file.
    pub name: &'static str,
    /// The filters, in order.
    pub filters: Vec<Filter>,
    /// Whether the filters are network filters in front of a TCP cluster.
    pub tcp: bool,
    /// What the client sends, one after the other.
    pub requests: Vec<Send>,
    /// What the upstream answers.
    pub answer: Answer,
    /// What the other cluster answers, which calls go to.
    pub other: Answer,
    /// Lines of the guests' logs that the end is waited for with, besides the end of every stream.
    pub until: Vec<&'static str>,
    /// What filters may hold of a body, in bytes.
    pub buffer: usize,
    /// Whether a guest ends by a trap, so that it hears of no stream's end.
    pub traps: bool,
    /// Whether everybody speaks through mutual TLS.
    pub tls: bool,
}

/// A filter of a scenario.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Its name, and its root id.
    pub name: &'static str,
    /// The guest.
    pub guest: &'static str,
    /// Its configuration: what the puppet does.
    pub script: String,
    /// The VM's configuration.
    pub vm_script: String,
    /// The VM id; the name, when it is empty.
    pub vm_id: &'static str,
    /// Environment variables.
    pub environment: Vec<(&'static str, &'static str)>,
    /// Whether a filter that pauses on headers is shown the body meanwhile.
    pub headers_stop_iteration: bool,
    /// Whether it may fail.
    pub fail_open: bool,
}

/// Something that the client sends.
#[derive(Debug, Clone, Default)]
pub struct Send {
    /// The method; nothing for TCP.
    pub method: &'static str,
    /// The path.
    pub path: &'static str,
    /// Headers.
    pub headers: Vec<(&'static str, &'static str)>,
    /// The body, in pieces.
    pub body: Vec<String>,
    /// Trailers.
    pub trailers: Vec<(&'static str, &'static str)>,
    /// Whether it goes over HTTP/2.
    pub h2: bool,
}

impl Scenario {
    /// A scenario with one filter, the puppet, and one request: `GET /`.
    pub fn new(name: &'static str, script: &str) -> Self {
        Self {
            name,
            filters: vec![Filter::new("one", script)],
            tcp: false,
            requests: Vec::new(),
            answer: Answer::default(),
            other: Answer::default(),
            until: Vec::new(),
            buffer: 1 << 20,
            traps: false,
            tls: false,
        }
    }

    /// With another filter behind those that are there.
    #[must_use]
    pub fn and(mut self, filter: Filter) -> Self {
        self.filters.push(filter);
        self
    }

    /// With a change of the first filter.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Filter)) -> Self {
        self.filters.first_mut().map_or_else(|| panic!("a filter"), change);
        self
    }

    /// With a request.
    #[must_use]
    pub fn send(mut self, send: Send) -> Self {
        self.requests.push(send);
        self
    }

    /// With an answer of the upstream.
    #[must_use]
    pub fn answer(mut self, answer: Answer) -> Self {
        self.answer = answer;
        self
    }

    /// With an answer of the other cluster.
    #[must_use]
    pub fn other(mut self, answer: Answer) -> Self {
        self.other = answer;
        self
    }

    /// Waits for a line of a guest's log.
    #[must_use]
    pub fn until(mut self, line: &'static str) -> Self {
        self.until.push(line);
        self
    }

    /// Whose guest ends by a trap.
    #[must_use]
    pub fn traps(mut self) -> Self {
        self.traps = true;
        self
    }

    /// In which everybody speaks through mutual TLS.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// The file with Envoy's transcript, and that with Weir's where it differs on purpose.
    fn files(&self) -> (PathBuf, PathBuf) {
        let folder = xtask::cargo::root().join("tests/parity");
        (folder.join(format!("{}.txt", self.name)), folder.join(format!("{}.weir.txt", self.name)))
    }

    /// What Envoy does, and what Weir is to do, as it is written down.
    pub fn written_down(&self) -> (String, String) {
        let (envoy, weir) = self.files();
        let envoy = std::fs::read_to_string(envoy).unwrap_or_default();
        let weir = std::fs::read_to_string(weir).unwrap_or_else(|_| envoy.clone());
        (envoy, weir)
    }

    /// Writes down what both do.
    ///
    /// # Panics
    /// When the folder cannot be written.
    pub fn write_down(&self, in_envoy: &str, in_weir: &str) {
        let (envoy, weir) = self.files();
        std::fs::create_dir_all(envoy.parent().expect("a folder")).expect("the folder can be made");
        std::fs::write(envoy, in_envoy).expect("the folder can be written");
        if in_envoy == in_weir {
            // There may be none.
            let _ = std::fs::remove_file(weir);
        } else {
            std::fs::write(weir, in_weir).expect("the folder can be written");
        }
    }

    /// The streams that begin: each is deleted once for each filter.
    fn streams(&self) -> usize {
        self.requests.len().max(1)
    }

    /// Whether all that was waited for is in the guests' log.
    fn is_over(&self, log: &[String]) -> bool {
        let deleted = |filter: &Filter| {
            let prefix = format!("{}: stream", filter.name);
            log.iter().filter(|line| line.starts_with(&prefix) && line.ends_with(" delete []")).count()
        };
        // What a guest without a script logs is its own affair.
        let puppets = self.filters.iter().filter(|filter| filter.guest.starts_with("puppet"));
        (self.traps || puppets.clone().all(|filter| deleted(filter) >= self.streams()))
            && self.until.iter().all(|wanted| log.iter().any(|line| line.contains(wanted)))
    }
}

impl Filter {
    /// A puppet.
    pub fn new(name: &'static str, script: &str) -> Self {
        Self {
            name,
            guest: "puppet",
            script: script.to_owned(),
            vm_script: String::new(),
            vm_id: "",
            environment: Vec::new(),
            headers_stop_iteration: false,
            fail_open: false,
        }
    }
}

/// Asks for a path.
pub fn get(path: &'static str) -> Send {
    Send { method: "GET", path, ..Send::default() }
}

/// Sends a body, in pieces.
pub fn post(path: &'static str, body: &[&str]) -> Send {
    Send {
        method: "POST",
        path,
        body: body.iter().map(|&piece| piece.to_owned()).collect(),
        ..Send::default()
    }
}

impl Send {
    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// With a trailer. That is for HTTP/2.
    #[must_use]
    pub fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        self.h2 = true;
        self.trailers.push((name, value));
        self
    }

    /// Over HTTP/2.
    #[must_use]
    pub fn h2(mut self) -> Self {
        self.h2 = true;
        self
    }
}

/// What came of a scenario.
#[derive(Debug, Default)]
pub struct Transcript {
    /// What the client got.
    pub client: Vec<String>,
    /// What the upstreams saw.
    pub upstream: Vec<String>,
    /// What the guests logged.
    pub log: Vec<String>,
}

impl std::fmt::Display for Transcript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (title, lines) in [("client", &self.client), ("upstream", &self.upstream), ("log", &self.log)] {
            writeln!(f, "--- {title}")?;
            lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        }
        Ok(())
    }
}

impl Transcript {
    /// Leaves out how often a VM was started: Envoy starts one on trial and one for its main thread besides that of
    /// the worker.
    fn new(client: Vec<String>, mut upstream: Vec<String>, mut log: Vec<String>) -> Self {
        // What the two upstreams see is in no order.
        upstream.sort_by_key(|line| line.starts_with("other"));
        // What is started after a stream has begun takes the place of an instance that failed, in its own time.
        let served = log.iter().position(|line| line.contains(": stream")).unwrap_or(log.len());
        let starts = [": root context_create", ": root vm_start []", ": root configure []"];
        let mut at = 0;
        log.retain(|line| {
            at += 1;
            at <= served || !starts.iter().any(|start| line.ends_with(start))
        });
        let begins: Vec<String> =
            log.iter().filter(|line| line.ends_with(": root context_create")).cloned().collect();
        for begin in begins {
            let filter = begin.trim_end_matches("root context_create");
            let last = log.iter().rposition(|line| *line == begin).unwrap_or(0);
            let mut at = 0;
            log.retain(|line| {
                at += 1;
                at > last || !line.starts_with(filter)
            });
        }
        Self { client, upstream, log: comparable(log) }
    }
}

/// Lays down in one order what the two do in orders of their own: Envoy makes a filter's context when it is first
/// called, and Weir all contexts when a stream begins; Envoy logs an HTTP stream for all filters before the first is
/// done, and Weir, as the specification has it, each filter after it is done. What root contexts hear of comes first,
/// since it comes when it comes.
fn comparable(log: Vec<String>) -> Vec<String> {
    let mut waiting: Vec<Block> = Vec::new();
    let mut lines = Vec::with_capacity(log.len());
    for block in blocks(log) {
        let own: Vec<Block> = waiting.extract_if(.., |other| other.context == block.context).collect();
        match block.callback.as_str() {
            "context_create" | "log" | "done" if block.context.contains(": stream") => {
                waiting.extend(own);
                waiting.push(block);
                // `done` before `log`.
                waiting.sort_by_key(|block| block.callback == "log");
            }
            // What ends the context goes before it is deleted, and what began it before whatever comes first.
            _ => {
                let (before, after): (Vec<Block>, Vec<Block>) = own
                    .into_iter()
                    .partition(|own| own.callback == "context_create" || block.callback == "delete");
                waiting.extend(after);
                lines.extend(before.into_iter().chain([block]).flat_map(|block| block.lines));
            }
        }
    }
    lines.extend(waiting.into_iter().flat_map(|block| block.lines));
    let (roots, streams): (Vec<String>, Vec<String>) =
        lines.into_iter().map(anonymous).map(tls::named).partition(|line| line.contains(": root "));
    [roots, streams].concat()
}

/// Numbers that each host gives out as it likes are not compared, but that one was given is.
fn anonymous(line: String) -> String {
    let numbers = ["http_call", "grpc_call", "grpc_stream", "define_metric", "get_log_level"];
    match line.split_once(" = 0 ") {
        Some((before, _)) if numbers.iter().any(|function| before.ends_with(function)) => {
            format!("{before} = 0 (a number)")
        }
        _ => line,
    }
}

/// A callback, and what the guest called in it.
struct Block {
    /// The filter and its context, as in `one: stream1`.
    context: String,
    callback: String,
    lines: Vec<String>,
}

fn blocks(log: Vec<String>) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for line in log {
        let mut words = line.split(' ');
        let context = [words.next(), words.next()].map(Option::unwrap_or_default).join(" ");
        let callback = words.next().unwrap_or_default().to_owned();
        // `filter: context function = status results`
        match blocks.last_mut() {
            Some(block) if words.next() == Some("=") && block.context == context => block.lines.push(line),
            _ => blocks.push(Block { context, callback, lines: vec![line] }),
        }
    }
    blocks
}

/// Whether `docs/compatibility.md` says why Weir differs in a scenario.
///
/// # Panics
/// When there is no such page.
pub fn explained(name: &str) -> bool {
    let page = xtask::cargo::root().join("docs/compatibility.md");
    let page = std::fs::read_to_string(page).expect("the page can be read");
    page.contains(&format!("`{name}`"))
}

/// Two texts, line by line: what is in one only is marked with its name.
pub fn difference((first, a): (&str, &str), (second, b): (&str, &str)) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (a.lines().collect(), b.lines().collect());
    // The longest common subsequence, the plain way: transcripts are short.
    let mut lengths = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            lengths[i][j] = if a[i] == b[j] {
                lengths[i + 1][j + 1] + 1
            } else {
                lengths[i + 1][j].max(lengths[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, String::new());
    while i < a.len() || j < b.len() {
        let (mark, line) = if i < a.len() && j < b.len() && a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
            ("", a[i - 1])
        } else if j == b.len() || (i < a.len() && lengths[i + 1][j] >= lengths[i][j + 1]) {
            i += 1;
            (first, a[i - 1])
        } else {
            j += 1;
            (second, b[j - 1])
        };
        out.push_str(&format!("  {mark:8} {line}\n"));
    }
    out
}

/// Headers by their names, without those that are each proxy's own affair or that differ from run to run.
fn in_order(headers: &http::HeaderMap) -> impl Iterator<Item = (String, String)> + use<> {
    let mut pairs: Vec<(String, String)> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .filter(|(name, _)| !is_incidental(name))
        .collect();
    // Of one name they stay as they are.
    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
    pairs.into_iter()
}

fn is_incidental(name: &str) -> bool {
    let own =
        ["date", "server", "x-request-id", "connection", "transfer-encoding", "content-length", "host", "te"];
    name.starts_with("x-envoy-") || name.starts_with("x-forwarded-") || own.contains(&name)
}
