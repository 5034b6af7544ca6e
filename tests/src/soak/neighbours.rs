//! The neighbour check: clean clients go on at a steady rate, first alone, then while a hostile guest is provoked. They
//! must not feel it, and once it is over nothing must be left of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::hostile::{Hostile, Outcome, Way, harmless};
use crate::soak::envoy::Envoy;
use crate::soak::floods::{Flood, Offered, Rush};
use crate::soak::load::{Load, Measured, REQUESTS};
use crate::soak::process::{Process, Usage};
use crate::soak::provoke::{self, Provoking};
use crate::soak::weir::Weir;
use crate::wait::PATIENCE;

/// Where a proxy listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The listener with the hostile guest.
    pub hostile: SocketAddr,
    /// One without.
    pub clean: SocketAddr,
    /// The one with the guest again, where `/clean` goes without it; or one more without, when the guest is a network
    /// filter.
    pub shared: SocketAddr,
}

/// Which proxy.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// A `weir` command.
    Weir(&'a Path),
    /// An Envoy.
    Envoy(&'a Path),
}

/// How the check is done.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Requests in a second of each clean client.
    pub rate: u32,
    /// Connections of each clean client.
    pub connections: u32,
    /// How long the clean clients are alone.
    pub baseline: Duration,
    /// How long the guest is provoked.
    pub attack: Duration,
    /// How long it may take until nothing is left of it.
    pub recovery: Duration,
    /// How long the end may take after SIGTERM. Weir's drain takes 5 s at most.
    pub end: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            rate: 200,
            connections: 8,
            baseline: Duration::from_secs(5),
            attack: Duration::from_secs(10),
            // Connections to the upstream that nobody uses are kept for a minute.
            recovery: Duration::from_secs(75),
            end: Duration::from_secs(10),
        }
    }
}

impl Plan {
    /// The short form, for the suite: it looks at failures and at what is left, and not at latencies.
    pub fn short() -> Self {
        Self {
            rate: 50,
            connections: 4,
            baseline: Duration::from_millis(200),
            attack: Duration::from_millis(1500),
            // Longer than idle connections to the upstream are kept: on a slow machine there are many.
            recovery: Duration::from_secs(75),
            end: PATIENCE,
        }
    }
}

/// What came of a check.
#[derive(Debug, Clone, Default)]
pub struct Outcomes {
    /// Why the proxy did not serve at all, when it did not.
    pub silent: Option<String>,
    /// The clean client of another listener, then that of the same one: alone, and beside the guest.
    pub neighbours: [[Measured; 2]; 2],
    /// What the process used before, at most, and after.
    pub usage: [Usage; 3],
    /// Memory that living guests hold more than before, and what their shared data may, in bytes.
    pub held: f64,
    /// How often the guest was provoked.
    pub provoked: usize,
    /// CPU time of the proxy while it was.
    pub cpu: Duration,
    /// How long the end took after SIGTERM.
    pub ended: Option<Duration>,
    /// What must not have been.
    pub breaches: Vec<String>,
}

/// Memory that may stay, in bytes: allocators give back late.
const MEMORY_LEFT: u64 = 32 << 20;
/// What two instances of guests may hold, in a proxy that does not tell.
const MEMORY_OF_GUESTS: u64 = 128 << 20;
/// Descriptors that may stay.
const DESCRIPTORS_LEFT: usize = 64;

/// A proxy that runs.
enum Running {
    Weir(Weir),
    Envoy(Envoy),
}

impl Running {
    fn start(subject: Subject<'_>, guest: &Hostile, upstream: SocketAddr) -> Result<Self, String> {
        match subject {
            Subject::Weir(weir) => Weir::start(weir, guest, upstream).map(Self::Weir),
            Subject::Envoy(envoy) => Envoy::start(envoy, guest, upstream).map(Self::Envoy),
        }
    }

    fn addresses(&self) -> Addresses {
        match self {
            Self::Weir(weir) => weir.addresses,
            Self::Envoy(envoy) => envoy.addresses,
        }
    }

    fn process(&self) -> &Process {
        match self {
            Self::Weir(weir) => &weir.process,
            Self::Envoy(envoy) => &envoy.process,
        }
    }

    /// What is copied, and where, when that is the way of the guest.
    fn copies(&self, guest: &Hostile) -> Option<(PathBuf, Vec<u8>)> {
        match self {
            Self::Weir(weir) if guest.way == Way::Copies => Some((weir.place(), guest.wasm())),
            Self::Weir(_) | Self::Envoy(_) => None,
        }
    }

    /// The memory of the instances, and what they may keep besides.
    fn held(&self, may_keep: usize) -> f64 {
        match self {
            Self::Weir(weir) => weir.metric("weir_plugin_memory_bytes", "") + may_keep as f64,
            Self::Envoy(_) => 0.0,
        }
    }

    /// What more may be resident than before.
    fn may_stay(&self, held: f64) -> u64 {
        match self {
            Self::Weir(_) => may_stay(held),
            Self::Envoy(_) => MEMORY_LEFT + MEMORY_OF_GUESTS,
        }
    }
}

/// What more may be resident in Weir than before, in bytes, when guests hold so much more.
pub fn may_stay(held: f64) -> u64 {
    MEMORY_LEFT + held.max(0.0) as u64
}

/// Checks one guest.
///
/// # Panics
/// When the harness itself fails.
pub fn check(subject: Subject<'_>, guest: &Hostile, plan: Plan, upstream: SocketAddr) -> Outcomes {
    check_beside(subject, guest, plan, upstream, |running| {
        provoke::start(guest.way, running.addresses().hostile, running.copies(guest))
    })
}

/// Checks a flood, on the listener where a guest stands that does no harm, or at somebody else's address: then what neighbours
/// feel is the machine's. What it sends is counted in `offered`.
///
/// # Panics
/// When the harness itself fails.
pub fn check_flood(
    subject: Subject<'_>,
    (flood, rush): (Flood, Rush),
    plan: Plan,
    (upstream, elsewhere): (SocketAddr, Option<SocketAddr>),
    offered: &Arc<Offered>,
) -> Outcomes {
    check_beside(subject, &harmless(), plan, upstream, |running| {
        flood.start(elsewhere.unwrap_or(running.addresses().hostile), rush, offered)
    })
}

fn check_beside(
    subject: Subject<'_>,
    guest: &Hostile,
    plan: Plan,
    upstream: SocketAddr,
    provoke: impl FnOnce(&Running) -> Provoking,
) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let mut running = match Running::start(subject, guest, upstream) {
        Ok(running) => running,
        Err(log) => {
            outcomes.silent = Some(log.lines().last().unwrap_or_default().to_owned());
            outcomes.breaches.push("it does not serve at all".to_owned());
            return outcomes;
        }
    };
    // Connections to the upstream are made, code is in the caches.
    measure(&running, plan, Duration::from_millis(500), |_| {});
    let before = running.process().usage().unwrap_or_default();
    let held = running.held(0);
    let alone = measure(&running, plan, plan.baseline, |_| {});
    let begun = running.process().usage().unwrap_or_default();
    let provoking = provoke(&running);
    let mut peak = before;
    let beside = measure(&running, plan, plan.attack, |usage| {
        peak.resident = peak.resident.max(usage.resident);
        peak.descriptors = peak.descriptors.max(usage.descriptors);
        outcomes.cpu = usage.cpu.saturating_sub(begun.cpu);
    });
    outcomes.provoked = provoking.stop();
    outcomes.neighbours = pairs(alone, beside);
    if let Running::Weir(weir) = &running {
        outcomes.breaches.extend(unprovoked(weir, guest.outcome, plan.recovery));
    }
    let held_more = || running.held(guest.may_keep()) - held;
    let after = recovered(&running, before, held_more, plan.recovery);
    outcomes.held = held_more();
    outcomes.usage = [before, peak, after];
    outcomes.breaches.extend(breaches(&outcomes, running.may_stay(outcomes.held)));
    let process = match &mut running {
        Running::Weir(weir) => &mut weir.process,
        Running::Envoy(envoy) => &mut envoy.process,
    };
    if !process.runs() {
        outcomes.breaches.push("the process is gone".to_owned());
    }
    let process = match running {
        Running::Weir(weir) => weir.process,
        Running::Envoy(envoy) => envoy.process,
    };
    outcomes.ended = process.terminate(plan.end);
    if outcomes.ended.is_none() {
        outcomes.breaches.push("it does not end after SIGTERM".to_owned());
    }
    outcomes
}

/// Runs both clean clients for so long, and shows what the process uses meanwhile.
fn measure(running: &Running, plan: Plan, duration: Duration, mut watch: impl FnMut(Usage)) -> [Measured; 2] {
    let Addresses { clean, shared, .. } = running.addresses();
    let load = |address, path| {
        let (rate, connections) = (plan.rate, plan.connections);
        let header = Some("x-calm: yes");
        Load { address, path, header, rate, connections, per_connection: REQUESTS }.start(duration)
    };
    let loads = [load(clean, "/"), load(shared, "/clean")];
    let until = Instant::now() + duration;
    while Instant::now() < until {
        running.process().usage().into_iter().for_each(&mut watch);
        std::thread::sleep(Duration::from_millis(50).min(until.saturating_duration_since(Instant::now())));
    }
    loads.map(|load| load.finish())
}

fn pairs([a, b]: [Measured; 2], [c, d]: [Measured; 2]) -> [[Measured; 2]; 2] {
    [[a, c], [b, d]]
}

/// Whether the guest did not do what it is there for; a check of one that slept would show nothing.
fn unprovoked(weir: &Weir, outcome: Outcome, patience: Duration) -> Option<String> {
    let (metric, label) = match outcome {
        Outcome::Faults => ("weir_plugin_faults_total", "plugin=\"hostile\""),
        Outcome::Refused => ("weir_plugin_reloads_total", "result=\"refused\""),
        Outcome::Borne => return None,
    };
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if weir.metric(metric, label) > 0.0 {
            return None;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Some(format!("the guest did no harm: {metric} is 0"))
}

/// What the process uses, once nothing more than may be is left, or when it takes too long.
fn recovered(running: &Running, before: Usage, held: impl Fn() -> f64, patience: Duration) -> Usage {
    let deadline = Instant::now() + patience;
    loop {
        let usage = running.process().usage().unwrap_or_default();
        let may_stay = running.may_stay(held());
        let good = usage.resident <= before.resident + may_stay
            && usage.descriptors <= before.descriptors + DESCRIPTORS_LEFT;
        if good || Instant::now() > deadline {
            return usage;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What the neighbours felt, and what is left.
pub fn breaches(outcomes: &Outcomes, may_stay: u64) -> Vec<String> {
    let mut breaches = Vec::new();
    for (name, [alone, beside]) in ["another listener", "the same listener"].iter().zip(&outcomes.neighbours)
    {
        if alone.failed() > 0 {
            breaches.push(format!(
                "{name}: {} failed before anything began: {:?}",
                alone.failed(),
                alone.failures
            ));
        }
        if beside.failed() > 0 {
            breaches.push(format!("{name}: {} failed: {:?}", beside.failed(), beside.failures));
        }
        let (base, under) = (alone.quantile(0.99), beside.quantile(0.99));
        if under > allowed(base) {
            breaches.push(format!("{name}: p99 {under:.1?}, alone {base:.1?}"));
        }
    }
    let [before, _, after] = outcomes.usage;
    if after.resident > before.resident + may_stay {
        let left = (after.resident - before.resident) >> 20;
        breaches.push(format!("{left} MiB are left, of which guests hold {:.0}", outcomes.held / 1048576.0));
    }
    if after.descriptors > before.descriptors + DESCRIPTORS_LEFT {
        breaches.push(format!("{} descriptors are left", after.descriptors - before.descriptors));
    }
    breaches
}

/// The p99 that neighbours may have beside a guest: twice that which they have alone, or 1 ms more where that is less
/// than 1 ms.
pub fn allowed(alone: Duration) -> Duration {
    let millisecond = Duration::from_millis(1);
    if alone < millisecond { alone + millisecond } else { alone * 2 }
}
