//! Long runs, by name: `hostile`, `reload`, `rotation`, `modules`. `cargo xtask soak` builds what they need and calls it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use weir_tests::hostile::{self, Hostile};
use weir_tests::soak::neighbours::{Outcomes, Plan, Subject, check};
use weir_tests::soak::process::Usage;
use weir_tests::soak::reload::{self, Storm, Survived};
use weir_tests::soak::rotation::{self, Outcome, Plan as RotationPlan};
use weir_tests::soak::{modules, report, upstream};
use weir_tests::upstream::Upstream;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.is_empty() {
        eprintln!("which one: hostile, reload, rotation or modules? `cargo xtask soak` says more");
        return ExitCode::FAILURE;
    }
    let run = arguments.remove(0);
    let options = Options::take(&mut arguments);
    let passed = match run.as_str() {
        "hostile" => neighbours(&options, &arguments),
        "reload" => storm(&options),
        "rotation" => rotations(&options),
        "modules" => random_modules(&options),
        other => {
            eprintln!("there is no `{other}`: hostile, reload, rotation, modules");
            false
        }
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the environment and the arguments say.
struct Options {
    weir: PathBuf,
    envoy: Option<PathBuf>,
    /// Whether only Envoy is looked at.
    only_envoy: bool,
    seconds: Option<u64>,
    baseline: Option<u64>,
    /// How often a guest is looked at when neighbours were slow beside it.
    runs: u64,
    /// How many modules, copies or rotations.
    count: Option<u64>,
}

impl Options {
    fn take(arguments: &mut Vec<String>) -> Self {
        let number = |arguments: &[String], name: &str| {
            let text = arguments.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='));
            text.and_then(|text| text.parse().ok())
        };
        let has = |name: &str| arguments.iter().any(|argument| argument == name);
        let (beside, only_envoy) = (has("--beside-envoy"), has("--only-envoy"));
        let (seconds, baseline) = (number(arguments, "--seconds"), number(arguments, "--baseline"));
        let (count, runs) = (number(arguments, "--count"), number(arguments, "--runs").unwrap_or(3));
        arguments.retain(|argument| !argument.starts_with("--"));
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        let envoy = if beside || only_envoy { path("ENVOY") } else { None };
        let weir = path("WEIR").unwrap_or_else(|| "target/release/weir".into());
        Self { weir, envoy, only_envoy, seconds, baseline, runs, count }
    }
}

/// Every hostile guest, or those whose names hold one of the arguments; each with its neighbours.
fn neighbours(options: &Options, names: &[String]) -> bool {
    let mut plan = Plan::default();
    plan.attack = options.seconds.map_or(plan.attack, Duration::from_secs);
    plan.baseline = options.baseline.map_or(plan.baseline, Duration::from_secs);
    let upstream = upstream();
    let mut subjects = Vec::new();
    if !options.only_envoy {
        subjects.push(("Weir", Subject::Weir(&options.weir)));
    }
    if let Some(envoy) = &options.envoy {
        subjects.push(("Envoy", Subject::Envoy(Path::new(envoy))));
    }
    let heads: Vec<&str> = subjects.iter().map(|(name, _)| *name).collect();
    println!("{}", report::head(&heads));
    let wanted = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part.as_str()));
    let (mut breaches, mut count) = (Vec::new(), 0);
    for guest in hostile::all().into_iter().filter(|guest| wanted(&guest.name)) {
        count += 1;
        let mut row = format!("| {} |", guest.name);
        for (name, subject) in &subjects {
            let (outcomes, runs) = repeated(*subject, &guest, plan, upstream.address, options.runs);
            row.push_str(&report::cells(&outcomes, runs));
            // Envoy is shown, and not judged.
            if matches!(subject, Subject::Weir(_)) {
                breaches.extend(told(&guest.name, &outcomes));
            }
            if let Some(line) = &outcomes.silent {
                eprintln!("{}: {name} does not serve: {line}", guest.name);
            }
        }
        println!("{row}");
    }
    println!("\n{count} guests, {} breaches in Weir", breaches.len());
    breaches.iter().for_each(|breach| println!("- {breach}"));
    count > 0 && breaches.is_empty()
}

fn upstream() -> Upstream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(upstream::start())
}

/// Reloads at a steady rate under load.
fn storm(options: &Options) -> bool {
    let mut storm = Storm::default();
    storm.copies = options.count.and_then(|count| u32::try_from(count).ok()).unwrap_or(storm.copies);
    let upstream = upstream();
    let survived = reload::run(&options.weir, storm, upstream.address);
    let Survived { requests, reloads: [taken, refused], instances, usage: [before, after] } = &survived;
    println!(
        "{} copies: {taken} taken, {refused} refused\n{} requests: {} failed {:?}\n\
         p50 {:.2?}, p99 {:.2?}, longest {:.2?}\n{instances} instances, {} MiB before, {} after; {} descriptors, {}",
        storm.copies,
        requests.latencies.len() + requests.failed(),
        requests.failed(),
        requests.failures,
        requests.quantile(0.5),
        requests.quantile(0.99),
        requests.quantile(1.0),
        before.resident >> 20,
        after.resident >> 20,
        before.descriptors,
        after.descriptors,
    );
    survived.breaches().iter().for_each(|breach| println!("- {breach}"));
    survived.breaches().is_empty()
}

/// Certificates that are replaced under load.
fn rotations(options: &Options) -> bool {
    let mut plan = RotationPlan::default();
    plan.rotations = options.count.and_then(|count| u32::try_from(count).ok()).unwrap_or(plan.rotations);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(rotation::run(&options.weir, plan));
    let Outcome { rotations, visits: [full, resumed, behind], failures, taken_up, usage: [before, after] } =
        &outcome;
    let middle = taken_up.get(taken_up.len() / 2).copied().unwrap_or_default();
    println!(
        "{rotations} of {} rotations taken up, after {middle:.0?} in the middle and {:.0?} at most\n         {full} full handshakes, {resumed} resumed, {behind} with the cluster: {} failed {failures:?}\n         {} MiB after a tenth, {} at the end; {} descriptors, {}",
        plan.rotations,
        taken_up.last().copied().unwrap_or_default(),
        failures.values().sum::<usize>(),
        before.resident >> 20,
        after.resident >> 20,
        before.descriptors,
        after.descriptors,
    );
    let breaches = outcome.breaches(plan);
    breaches.iter().for_each(|breach| println!("- {breach}"));
    breaches.is_empty()
}

/// Random modules through the loader, in rounds, so that a leak would be seen to grow.
fn random_modules(options: &Options) -> bool {
    let (count, rounds) = (options.count.unwrap_or(10_000), 10);
    let (mut sizes, mut left) = (Vec::new(), 0);
    for round in 0..rounds {
        let tally = modules::run(round * (count / rounds), count / rounds);
        let resident = Usage::own().resident >> 20;
        println!("{resident} MiB, {tally:?}");
        sizes.push(resident);
        left += tally.instances_left + tally.memory_left;
    }
    // What is kept once is no leak; what grows with every round is.
    let grown = sizes.last().zip(sizes.get(1)).map_or(0, |(last, second)| last.saturating_sub(*second));
    println!("{count} modules, {left} left, {grown} MiB more from the second round to the last");
    left == 0 && grown <= 64
}

/// Checks a guest, and once more while latencies are all that speaks against it: what else runs on the machine is felt
/// by neighbours, too. What it is the last time counts; and how often it was.
fn repeated(
    subject: Subject<'_>,
    guest: &Hostile,
    plan: Plan,
    upstream: SocketAddr,
    most: u64,
) -> (Outcomes, u64) {
    let mut runs = 0;
    loop {
        let outcomes = check(subject, guest, plan, upstream);
        runs += 1;
        let slow = |breach: &String| breach.contains(": p99 ");
        let only_slow = !outcomes.breaches.is_empty() && outcomes.breaches.iter().all(slow);
        if runs >= most || !only_slow || matches!(subject, Subject::Envoy(_)) {
            return (outcomes, runs);
        }
    }
}

fn told(guest: &str, outcomes: &Outcomes) -> Vec<String> {
    outcomes.breaches.iter().map(|breach| format!("{guest}: {breach}")).collect()
}
