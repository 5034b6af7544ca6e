//! Tests of filters, in Rust, against the host of Weir: the instances, host functions and chains of `weir run`, with a
//! clock that stands still and clusters that are made up. It is what `weir plugin test` is made of.
//!
//! ```no_run
//! let plugin = weir_testkit::Plugin::build(env!("CARGO_MANIFEST_DIR"));
//! let mut bed = plugin.filter("{ config: { keys: { secret: ann } } }").start();
//!
//! let seen = bed.get("/").send();
//! assert_eq!(seen.status(), Some(401));
//!
//! let seen = bed.get("/").header("x-api-key", "secret").send();
//! assert_eq!(seen.upstream_header("x-user").as_deref(), Some("ann"));
//! ```
//!
//! A test panics when something cannot be done, with a message that says what.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use weir::author::build::build;
use weir::author::project::Project;
use weir::author::test::{Wanted, test};
use weir::config::section::{Context, Read};
use weir::config::yaml::Node;
use weir::plugin::library::Loaded;
use weir::testbed::{
    Bed as HostBed, Body, ConnectionFacts, NotStarted, RequestFacts, ResponseFacts, Setting, Use, Workbench,
    default_of,
};

pub use weir::testbed::{Call, Direction, Line, Seen, SeenCall, SeenRequest, SeenResponse};

/// A plugin that can be started.
pub struct Plugin(Loaded);

impl Plugin {
    /// Builds the plugin of a crate, as `weir plugin build` does: of the one whose test this is, with
    /// `env!("CARGO_MANIFEST_DIR")`.
    ///
    /// # Panics
    /// When it does not build, or Weir would refuse it.
    pub fn build(folder: impl AsRef<Path>) -> Self {
        let built = Project::open(folder.as_ref()).and_then(|project| build(&project));
        match built {
            Ok(built) => Self::load(built.wasm),
            Err(error) => panic!("{error:#}"),
        }
    }

    /// Loads a `.wasm` file.
    ///
    /// # Panics
    /// When it cannot be read, or Weir would refuse it.
    pub fn load(file: impl AsRef<Path>) -> Self {
        let shown = file.as_ref().display();
        let bytes = std::fs::read(&file).unwrap_or_else(|error| panic!("{shown} cannot be read: {error}"));
        Self(workbench().load(&bytes).unwrap_or_else(|error| panic!("{shown}: {error:#}")))
    }

    /// A filter of the plugin, as it would stand in a chain, in YAML and without its plugin: `{ config: {…}, grants: {…} }`.
    ///
    /// # Panics
    /// When that is no filter.
    pub fn filter(&self, yaml: &str) -> Filter<'_> {
        let filter: Use = read(yaml);
        let setting = Setting {
            filter,
            watched: None,
            before: Vec::new(),
            behind: Vec::new(),
            time: weir::testbed::Time::parse("2026-01-01T00:00:00Z").unwrap_or_else(|| panic!("a time")),
            calls: Vec::new(),
            shared_data: Default::default(),
        };
        Filter { plugin: self, setting }
    }
}

/// One engine for all tests of a process: each takes a great deal of address space.
fn workbench() -> &'static Arc<Workbench> {
    static WORKBENCH: OnceLock<Arc<Workbench>> = OnceLock::new();
    WORKBENCH.get_or_init(|| Workbench::new().unwrap_or_else(|error| panic!("no engine: {error:#}")))
}

/// Reads a piece of YAML, as it would stand in a file of cases.
fn read<T: Read>(yaml: &str) -> T {
    let node = Node::parse(yaml).unwrap_or_else(|(at, why)| panic!("line {}: {why}", at.line));
    let mut cx = Context::new(Path::new("yaml"));
    let read = T::read(&node, &mut cx);
    match (read, cx.finish()) {
        (Some(read), problems) if problems.0.is_empty() => read,
        (_, problems) => panic!("{problems}"),
    }
}

/// A filter that is not started yet.
pub struct Filter<'a> {
    plugin: &'a Plugin,
    setting: Setting,
}

impl Filter<'_> {
    /// The time of day at which it starts, as in `2026-01-31T12:00:00Z`.
    ///
    /// # Panics
    /// When that is no time.
    #[must_use]
    pub fn at(mut self, time: &str) -> Self {
        self.setting.time =
            weir::testbed::Time::parse(time).unwrap_or_else(|| panic!("`{time}` is not a time"));
        self
    }

    /// What a cluster answers to calls, as it would stand in `calls`: `{ cluster: authz, answer: { status: 200 } }`.
    ///
    /// # Panics
    /// When that is none.
    #[must_use]
    pub fn call(mut self, yaml: &str) -> Self {
        self.setting.calls.push(read(yaml));
        self
    }

    /// Shared data that is there at the beginning.
    #[must_use]
    pub fn shared_data(mut self, key: &str, value: &str) -> Self {
        let value = Body(vec![value.as_bytes().to_vec().into()]);
        self.setting.shared_data.insert(key.to_owned(), value);
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it refuses its configuration, or fails.
    pub fn start(self) -> Bed {
        self.try_start().unwrap_or_else(|why| panic!("the plugin does not start: {why}"))
    }

    /// Starts it.
    ///
    /// # Errors
    /// Why it refuses its configuration: what it logged, or else what Weir says.
    ///
    /// # Panics
    /// When it could not even be tried.
    pub fn try_start(self) -> Result<Bed, String> {
        match HostBed::start(workbench(), &self.plugin.0, self.setting) {
            Ok(bed) => Ok(Bed { bed, connection: default_of() }),
            Err(NotStarted::Plugin { error, log }) => {
                Err(if log.is_empty() { error.to_string() } else { log.join("\n") })
            }
            Err(NotStarted::Other(error)) => panic!("{error:#}"),
        }
    }
}

/// A filter that runs.
pub struct Bed {
    bed: HostBed,
    connection: ConnectionFacts,
}

impl Bed {
    /// The connection of the streams that follow, as it would stand in `connection`:
    /// `{ tls: { client: { uri_sans: ["spiffe://mesh.internal/orders"] } } }`.
    ///
    /// # Panics
    /// When that is none.
    pub fn connection(&mut self, yaml: &str) -> &mut Self {
        self.connection = read(yaml);
        self
    }

    /// A GET.
    pub fn get(&mut self, path: &str) -> Request<'_> {
        self.request("GET", path)
    }

    /// A request.
    pub fn request(&mut self, method: &str, path: &str) -> Request<'_> {
        let mut request: RequestFacts = default_of();
        (request.method, request.path.value) = (method.to_owned(), path.to_owned());
        Request { bed: self, request, response: default_of(), properties: Vec::new() }
    }

    /// A connection, for network filters: what comes on it, in this order, as it would stand in `data`:
    /// `[{ client: hello }, { upstream: world }]`.
    ///
    /// # Panics
    /// When that is none.
    pub fn data(&mut self, yaml: &str) -> Seen {
        let data: Vec<Direction> = read(yaml);
        self.bed.connection(Some(&self.connection), &data, &[])
    }

    /// Lets time go by. Timers fire on the way; what was seen meanwhile is returned.
    pub fn pass(&mut self, time: Duration) -> Seen {
        self.bed.pass(time);
        self.bed.take_seen()
    }

    /// Plans what a cluster answers from now on to calls that nothing else is planned for.
    ///
    /// # Panics
    /// When that is none.
    pub fn call(&mut self, yaml: &str) -> &mut Self {
        self.bed.answer(read(yaml));
        self
    }

    /// The shared data of the filter.
    pub fn shared_data(&self, key: &str) -> Option<String> {
        self.bed.shared_data(key).map(|value| String::from_utf8_lossy(&value).into_owned())
    }

    /// A metric of the plugin's own: a number, or how many values a histogram has.
    pub fn metric(&self, name: &str) -> Option<i64> {
        self.bed.metric(name)
    }
}

/// A request that is not sent yet.
pub struct Request<'a> {
    bed: &'a mut Bed,
    request: RequestFacts,
    response: ResponseFacts,
    properties: Vec<String>,
}

impl Request<'_> {
    /// Its host.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.request.host = host.to_owned();
        self
    }

    /// Another header, or another value of one.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let more: weir::testbed::Headers = read(&serde_json::json!({ name: value }).to_string());
        for (name, value) in &more.0 {
            self.request.headers.0.append(name, value.clone());
        }
        self
    }

    /// Its body, in one piece; called again, another piece.
    #[must_use]
    pub fn body(mut self, piece: impl AsRef<[u8]>) -> Self {
        self.request.body.0.push(piece.as_ref().to_vec().into());
        self
    }

    /// What the upstream answers, as it would stand in `response`: `{ status: 404, headers: {…}, body: … }`.
    ///
    /// # Panics
    /// When that is none.
    #[must_use]
    pub fn upstream(mut self, yaml: &str) -> Self {
        self.response = read(yaml);
        self
    }

    /// A property that is to be noted down at the end, as in `request.path`.
    #[must_use]
    pub fn property(mut self, path: &str) -> Self {
        self.properties.push(path.to_owned());
        self
    }

    /// Sends it; what was seen of it, once it has been answered.
    ///
    /// # Panics
    /// When it is no request, or its answer never comes.
    pub fn send(self) -> Seen {
        let Bed { bed, connection } = self.bed;
        let properties: Vec<&str> = self.properties.iter().map(String::as_str).collect();
        let seen = bed.exchange(Some(connection), None, &self.request, Some(&self.response), &properties);
        let seen = seen.unwrap_or_else(|error| panic!("{error:#}"));
        assert!(!seen.stuck, "the filter waits, and there is nothing that it could wait for");
        seen
    }
}

/// Runs all cases in a crate's `cases/`, as `weir plugin test` does.
///
/// # Panics
/// When one is not as expected, with all that is not.
pub fn run_cases(folder: impl AsRef<Path>) {
    let wanted = Wanted { paths: vec![folder.as_ref().to_owned()], ..Wanted::default() };
    let tested = test(&wanted).unwrap_or_else(|error| panic!("{error:#}"));
    let mut bad = String::new();
    for file in tested {
        for outcome in file.outcomes.iter().filter(|outcome| !outcome.is_good()) {
            bad += &format!("\n{}", outcome.name);
            for difference in &outcome.differences {
                let (at, text) = (difference.place.at, difference.text());
                bad += &format!("\n  {}:{}:{}: {text}", file.file.display(), at.line, at.column);
            }
        }
    }
    assert!(bad.is_empty(), "{bad}");
}
