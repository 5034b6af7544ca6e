//! Long runs, by name: `hostile`. `cargo xtask soak` builds what they need and calls it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use weir_tests::hostile;
use weir_tests::soak::neighbours::{Outcomes, Plan, Subject, check};
use weir_tests::soak::{report, upstream};

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.is_empty() {
        eprintln!("which one: hostile? `cargo xtask soak` says more");
        return ExitCode::FAILURE;
    }
    let run = arguments.remove(0);
    let options = Options::take(&mut arguments);
    let passed = match run.as_str() {
        "hostile" => neighbours(&options, &arguments),
        other => {
            eprintln!("there is no `{other}`: hostile");
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
        arguments.retain(|argument| !argument.starts_with("--"));
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        let envoy = if beside || only_envoy { path("ENVOY") } else { None };
        let weir = path("WEIR").unwrap_or_else(|| "target/release/weir".into());
        Self { weir, envoy, only_envoy, seconds, baseline }
    }
}

/// Every hostile guest, or those whose names hold one of the arguments; each with its neighbours.
fn neighbours(options: &Options, names: &[String]) -> bool {
    let mut plan = Plan::default();
    plan.attack = options.seconds.map_or(plan.attack, Duration::from_secs);
    plan.baseline = options.baseline.map_or(plan.baseline, Duration::from_secs);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let upstream = runtime.block_on(upstream::start());
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
            let outcomes = check(*subject, &guest, plan, upstream.address);
            row.push_str(&report::cells(&outcomes));
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

fn told(guest: &str, outcomes: &Outcomes) -> Vec<String> {
    outcomes.breaches.iter().map(|breach| format!("{guest}: {breach}")).collect()
}
