//! A reload storm: versions are copied in at a steady rate, some of them broken, while a client goes on at a steady rate
//! of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::hostile::{Hostile, Way, calm, harmless};
use crate::soak::load::{Load, Measured, REQUESTS};
use crate::soak::process::Usage;
use crate::soak::provoke::distinct;
use crate::soak::weir::Weir;

/// How the storm is.
#[derive(Debug, Clone, Copy)]
pub struct Storm {
    /// Copies in all; each fifth is broken.
    pub copies: u32,
    /// Their distance.
    pub rhythm: Duration,
    /// Requests in a second.
    pub rate: u32,
    /// Connections of the client.
    pub connections: u32,
}

impl Default for Storm {
    fn default() -> Self {
        Self { copies: 2000, rhythm: Duration::from_millis(100), rate: 2000, connections: 32 }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Survived {
    /// The client's requests.
    pub requests: Measured,
    /// Versions that served, and versions that were refused. One that is replaced before it is looked at is neither.
    pub reloads: [f64; 2],
    /// Instances at the end.
    pub instances: f64,
    /// What the process used before and after.
    pub usage: [Usage; 2],
}

impl Survived {
    /// What must not have been.
    pub fn breaches(&self) -> Vec<String> {
        let mut breaches = Vec::new();
        if self.requests.failed() > 0 {
            breaches.push(format!(
                "{} requests failed: {:?}",
                self.requests.failed(),
                self.requests.failures
            ));
        }
        if self.instances > 2.0 {
            breaches.push(format!("{} instances are left for two workers", self.instances));
        }
        let [taken, refused] = self.reloads;
        if taken < 2.0 || refused < 1.0 {
            breaches.push(format!("there was no storm: {taken} versions taken, {refused} refused"));
        }
        breaches
    }
}

/// Four ways to be no version of a plugin.
fn broken(good: &[u8]) -> [Vec<u8>; 4] {
    let refuses = "(module (memory (export \"memory\") 1) (func (export \"proxy_abi_version_0_2_1\"))
        (func (export \"malloc\") (param i32) (result i32) (i32.const 0))
        (func (export \"proxy_on_configure\") (param i32 i32) (result i32) unreachable))";
    [
        good[..good.len() / 2].to_vec(),
        b"not wasm".to_vec(),
        wat::parse_str("(module)").expect("a module"),
        wat::parse_str(refuses).expect("a module"),
    ]
}

/// Runs a storm over a Weir.
///
/// # Panics
/// When the harness fails, or the last version does not serve.
pub fn run(weir: &Path, storm: Storm, upstream: SocketAddr) -> Survived {
    let good = calm();
    // A guest that does no harm stands where hostile ones do.
    let guest = Hostile { name: "calm".to_owned(), way: Way::Copies, ..harmless() };
    let weir = Weir::start(weir, &guest, upstream).unwrap_or_else(|log| panic!("it does not serve:\n{log}"));
    let load = Load {
        address: weir.addresses.hostile,
        path: "/",
        header: Some("x-calm: yes"),
        rate: storm.rate,
        connections: storm.connections,
        per_connection: REQUESTS,
    };
    load.start(Duration::from_millis(500)).finish();
    let before = weir.process.usage().unwrap_or_default();
    let running = load.start(storm.rhythm * storm.copies);
    let (began, broken) = (Instant::now(), broken(&good));
    for copy in 0..storm.copies {
        // The rhythm of the storm, and no wait for anything.
        std::thread::sleep((storm.rhythm * copy).saturating_sub(began.elapsed()));
        let bytes = match copy % 5 {
            4 => distinct(&broken[(copy / 5) as usize % broken.len()], copy),
            _ => distinct(&good, copy),
        };
        put(&weir, &bytes);
    }
    let count = |result: &str| weir.metric("weir_plugin_reloads_total", &format!("result=\"{result}\""));
    // Where the machine has much to do, each broken one was replaced before anybody looked: the last one is not.
    for (bytes, result) in [(&broken[0], "refused"), (&good, "taken")] {
        let before = count(result);
        put(&weir, &distinct(bytes, storm.copies));
        let deadline = Instant::now() + Duration::from_secs(30);
        while count(result) == before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let requests = running.finish();
    let reloads = ["taken", "refused"].map(count);
    // The hostile place's instances only: those of the last version, one for each worker.
    let instances = || weir.metric("weir_plugin_instances", "plugin=\"hostile\"");
    let deadline = Instant::now() + Duration::from_secs(30);
    while instances() > 2.0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    let after = weir.process.usage().unwrap_or_default();
    Survived { requests, reloads, instances: instances(), usage: [before, after] }
}

fn put(weir: &Weir, bytes: &[u8]) {
    let place = weir.place();
    let beside = place.with_extension("new");
    let written = std::fs::write(&beside, bytes);
    written.and_then(|()| std::fs::rename(&beside, &place)).expect("the plugin directory can be written");
}
