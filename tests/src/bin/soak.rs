//! Long runs, by name. `cargo xtask soak` builds what they need and calls it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use weir::overload::descriptors::make_room;
use weir_tests::hostile;
use weir_tests::soak::floods::{Offered, Rush};
use weir_tests::soak::idle::{self, Proxy};
use weir_tests::soak::neighbours::{Outcomes, Plan, Subject, check, check_flood};
use weir_tests::soak::process::{Usage, be_urgent, be_usual};
use weir_tests::soak::reload::{self, Storm, Survived};
use weir_tests::soak::rotation::{self, Outcome, Plan as RotationPlan};
use weir_tests::soak::{floods, modules, pairing, report, takeover, upstream, upstream_kills};
use weir_tests::upstream::Upstream;

/// What there is.
const RUNS: &str = "hostile, floods, idle, reload, rotation, modules, takeover, upstream-kills, pairing";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.is_empty() {
        eprintln!("which one: {RUNS}? `cargo xtask soak` says more");
        return ExitCode::FAILURE;
    }
    let run = arguments.remove(0);
    if !be_urgent() {
        eprintln!(
            "without the right to be more urgent (CAP_SYS_NICE) clients compete with the proxy for processors"
        );
    }
    let limit = getrlimit(Resource::Nofile);
    // What cannot be had shows when it is needed.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    // Before there is another thread: neighbours are not to wait for the table of their own process.
    make_room();
    let options = Options::take(&mut arguments);
    let passed = match run.as_str() {
        "hostile" => neighbours(&options, &arguments),
        "floods" => floods(&options, &arguments),
        "idle" => idle(&options),
        "reload" => storm(&options),
        "rotation" => rotations(&options),
        "modules" => random_modules(&options),
        "takeover" => takeovers(&options),
        "upstream-kills" => kills(&options),
        "pairing" => pairs(&options),
        // One of the processes of `upstream-kills`, and that of `floods --control`.
        "upstream" | "sink" => {
            if run == "sink" {
                be_usual();
            }
            let address = arguments.first().and_then(|address| address.parse().ok());
            address.is_some_and(|address| upstream::run(address).is_ok())
        }
        other => {
            eprintln!("there is no `{other}`: {RUNS}");
            false
        }
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the environment and the arguments say.
struct Options {
    weir: PathBuf,
    envoy: Option<PathBuf>,
    /// The HAProxy of the path, when it is to be looked at.
    haproxy: Option<PathBuf>,
    /// Whether only Envoy is looked at.
    only_envoy: bool,
    /// Whether floods go to a plain server as well, which is no proxy.
    control: bool,
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
        let control = has("--control");
        let (seconds, baseline) = (number(arguments, "--seconds"), number(arguments, "--baseline"));
        let (count, runs) = (number(arguments, "--count"), number(arguments, "--runs").unwrap_or(3));
        let haproxy = has("--beside-haproxy").then(|| "haproxy".into());
        arguments.retain(|argument| !argument.starts_with("--"));
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        let envoy = if beside || only_envoy { path("ENVOY") } else { None };
        let weir = path("WEIR").unwrap_or_else(|| "target/release/weir".into());
        Self { weir, envoy, haproxy, only_envoy, control, seconds, baseline, runs, count }
    }
}

/// How long a flood goes on.
const FLOOD: Duration = Duration::from_secs(30);

/// How long it takes until all of its clients are there: 200 in a second, as slowhttptest does it.
const GATHERING: Duration = Duration::from_secs(10);

/// Every flood, or those whose names hold one of the arguments; each with its neighbours.
fn floods(options: &Options, names: &[String]) -> bool {
    let mut plan = Plan::default();
    plan.attack = options.seconds.map_or(FLOOD, Duration::from_secs);
    plan.baseline = options.baseline.map_or(plan.baseline, Duration::from_secs);
    let clients = options.count.and_then(|count| usize::try_from(count).ok()).unwrap_or(2000);
    let upstream = upstream();
    let rush = Rush { clients, spread: GATHERING, stands_back: true };
    println!("{}", report::flood_head());
    let wanted = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part.as_str()));
    let (mut breaches, mut count) = (Vec::new(), 0);
    for flood in floods::ALL.into_iter().filter(|flood| wanted(flood.name())) {
        count += 1;
        let check = |elsewhere| {
            let offered = Arc::new(Offered::default());
            let (weir, upstream) = (Subject::Weir(&options.weir), (upstream.address, elsewhere));
            let outcomes = check_flood(weir, (flood, rush), plan, upstream, &offered);
            (outcomes, offered)
        };
        let (outcomes, offered, runs) = repeated(options.runs, || check(None));
        println!("{}", report::flood_row(flood.name(), &outcomes, runs, &offered, plan.attack));
        if options.control {
            // It is shown, and not judged.
            let program = std::env::current_exe().expect("Linux tells where the program is");
            let (_sink, address) = upstream::Apart::start(&program, "sink", ([127, 0, 0, 1], 0).into());
            let (outcomes, offered) = check(Some(address));
            let name = format!("{}, at a plain server", flood.name());
            println!("{}", report::flood_row(&name, &outcomes, 1, &offered, plan.attack));
        }
        let memory = floods::out_of_proportion(&outcomes, clients, offered.bytes.load(Ordering::Relaxed));
        breaches.extend(told(flood.name(), &outcomes));
        breaches.extend(memory.map(|breach| format!("{}: {breach}", flood.name())));
    }
    println!("\n{count} floods of {clients} clients, {} breaches", breaches.len());
    breaches.iter().for_each(|breach| println!("- {breach}"));
    count > 0 && breaches.is_empty()
}

/// TLS connections that say nothing for ten minutes.
fn idle(options: &Options) -> bool {
    let count = options.count.and_then(|count| usize::try_from(count).ok()).unwrap_or(9000);
    let plan = idle::Plan { connections: count, held: Duration::from_secs(options.seconds.unwrap_or(600)) };
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if most < count as u64 + 512 {
        println!("{count} connections are more than RLIMIT_NOFILE ({most}) allows: raise its hard limit");
        return false;
    }
    let mut proxies = vec![("Weir", Proxy::Weir(&options.weir))];
    proxies.extend(options.envoy.as_deref().map(|envoy| ("Envoy", Proxy::Envoy(envoy))));
    proxies.extend(options.haproxy.as_deref().map(|haproxy| ("HAProxy", Proxy::Haproxy(haproxy))));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let upstream = runtime.block_on(upstream::start());
    println!("{}", report::IDLE_HEAD);
    let mut good = true;
    for (name, proxy) in proxies {
        let outcome = runtime.block_on(idle::run(proxy, plan, upstream.address));
        println!("{}", report::idle_row(name, &outcome));
        // The others are shown, and not judged.
        if name == "Weir" {
            good = outcome.kept == count;
            outcome.failures.iter().for_each(|(reason, count)| println!("- {count} failed: {reason}"));
        }
    }
    good
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
    let mut guests: Vec<_> = hostile::all().into_iter().filter(|guest| wanted(&guest.name)).collect();
    // What the check says of one that means no harm is what it says of the machine.
    guests.extend(names.iter().any(|name| name == "harmless").then(hostile::harmless));
    for guest in guests {
        count += 1;
        let mut row = format!("| {} |", guest.name);
        for (name, subject) in &subjects {
            // Envoy is shown, and not judged.
            let most = if matches!(subject, Subject::Weir(_)) { options.runs } else { 1 };
            let (outcomes, (), runs) =
                repeated(most, || (check(*subject, &guest, plan, upstream.address), ()));
            row.push_str(&report::cells(&outcomes, runs));
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

/// One upstream of three after the other is killed under load.
fn kills(options: &Options) -> bool {
    let count = options.count.and_then(|count| usize::try_from(count).ok()).unwrap_or(300);
    let rhythm = Duration::from_millis(200);
    let plan = upstream_kills::Plan { kills: count, rhythm, rate: 1000, connections: 16 };
    let program = std::env::current_exe().expect("Linux tells where the program is");
    let survived = upstream_kills::run(&options.weir, &program, plan);
    let (requests, retries) = (&survived.requests, survived.retries);
    println!(
        "{count} kills, {} requests: {} failed {:?}, {retries} retries, p50 {:.2?}, p99 {:.2?}, longest {:.2?}",
        requests.latencies.len() + requests.failed(),
        requests.failed(),
        requests.failures,
        requests.quantile(0.5),
        requests.quantile(0.99),
        requests.quantile(1.0)
    );
    if requests.failed() > 0 {
        println!("{}", survived.log);
    }
    requests.failed() == 0 && retries > 0.0
}

/// Requests with a nonce each to upstreams that answer oddly.
fn pairs(options: &Options) -> bool {
    let count = options.count.unwrap_or(1_000_000);
    let tally = pairing::through(&options.weir, count, 64);
    let (paired, refused) = (tally.paired, &tally.refused);
    println!(
        "{} requests: {paired} answers, each its own request's; {refused:?} of Weir itself by status; {} cut off, {} given up by \
         the client; {} wrong",
        tally.count(),
        tally.unanswered,
        tally.abandoned,
        tally.wrong.len()
    );
    tally.wrong.iter().take(20).for_each(|wrong| println!("- {wrong}"));
    tally.wrong.is_empty() && paired > tally.count() / 2
}

/// One process after the other takes over under load.
fn takeovers(options: &Options) -> bool {
    let count = options.count.and_then(|count| usize::try_from(count).ok()).unwrap_or(200);
    let plan = takeover::Plan { takeovers: count, rate: 1000, connections: 16 };
    let survived = takeover::run(&options.weir, plan, upstream().address);
    let [longest, all] = survived.took;
    println!(
        "{count} takeovers, ready after {:.2?} on average, {longest:.2?} at most",
        all / u32::try_from(count).unwrap_or(u32::MAX).max(1)
    );
    let loads = [("kept", &survived.kept), ("new", &survived.fresh), ("HTTP/2", &survived.streams)];
    for (what, measured) in loads {
        println!(
            "{} requests on {what} connections: {} failed {:?}, p50 {:.2?}, p99 {:.2?}, longest {:.2?}",
            measured.latencies.len() + measured.failed(),
            measured.failed(),
            measured.failures,
            measured.quantile(0.5),
            measured.quantile(0.99),
            measured.quantile(1.0)
        );
    }
    survived.breaches.iter().for_each(|breach| println!("- {breach}"));
    survived.breaches.is_empty()
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

/// Checks something, and once more while latencies are all that speaks against it: what else runs on the machine is felt
/// by neighbours, too. What it is the last time counts; and how often it was.
fn repeated<T>(most: u64, mut check: impl FnMut() -> (Outcomes, T)) -> (Outcomes, T, u64) {
    let mut runs = 0;
    loop {
        let (outcomes, beside) = check();
        runs += 1;
        let slow = |breach: &String| breach.contains(": p99 ");
        let only_slow = !outcomes.breaches.is_empty() && outcomes.breaches.iter().all(slow);
        if runs >= most || !only_slow {
            return (outcomes, beside, runs);
        }
    }
}

fn told(name: &str, outcomes: &Outcomes) -> Vec<String> {
    outcomes.breaches.iter().map(|breach| format!("{name}: {breach}")).collect()
}
