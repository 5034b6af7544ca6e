//! Runs scenarios in Envoy and in Weir, and compares.
//!
//! `cargo xtask parity` installs Envoy and calls it. Without arguments all scenarios run; with some, those whose names
//! contain one of them. It fails when Envoy does not do what is written down of it, or Weir not what is written down
//! of Weir. `--update` writes both down anew.

use std::path::PathBuf;
use std::process::ExitCode;

use weir_tests::parity::{Scenario, Transcript, difference, envoy, explained, scenarios, weir};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    tokio::task::LocalSet::new().run_until(run()).await
}

async fn run() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let update = arguments.iter().any(|argument| argument == "--update");
    arguments.retain(|argument| !argument.starts_with("--"));
    let Some(path) = std::env::var_os("ENVOY").map(PathBuf::from) else {
        eprintln!("ENVOY is to be the path of an Envoy; `cargo xtask parity` installs one and sets it");
        return ExitCode::FAILURE;
    };
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|part| name.contains(part));
    let (mut same, mut differing, mut failed) = (0, Vec::new(), Vec::new());
    for scenario in scenarios::all().into_iter().filter(|scenario| wanted(scenario.name)) {
        let name = scenario.name;
        let (own, path) = (scenario.clone(), path.clone());
        let in_envoy = shown(tokio::task::spawn_local(async move { envoy::run(&own, &path).await })).await;
        let own = scenario.clone();
        let in_weir = shown(tokio::task::spawn_local(async move { weir::run(&own).await })).await;
        if update {
            scenario.write_down(&in_envoy, &in_weir);
        }
        if in_envoy == in_weir {
            println!("same     {name}");
            same += 1;
        } else {
            println!("differs  {name}\n{}", difference(("envoy", &in_envoy), ("weir", &in_weir)));
            differing.push(name);
        }
        if let Err(reason) = holds(&scenario, &in_envoy, &in_weir) {
            println!("FAILED   {name}: {reason}");
            failed.push(name);
        }
    }
    println!("{same} scenarios are the same, {} differ: {}", differing.len(), differing.join(", "));
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("{} are not as they are written down: {}", failed.len(), failed.join(", "));
    ExitCode::FAILURE
}

/// Whether both do what is written down of them, and whether a difference is explained.
fn holds(scenario: &Scenario, in_envoy: &str, in_weir: &str) -> Result<(), String> {
    let (of_envoy, of_weir) = scenario.written_down();
    if in_envoy != of_envoy {
        return Err(format!("Envoy\n{}", difference(("written", &of_envoy), ("envoy", in_envoy))));
    }
    if in_weir != of_weir {
        return Err(format!("Weir\n{}", difference(("written", &of_weir), ("weir", in_weir))));
    }
    if of_envoy != of_weir && !explained(scenario.name) {
        return Err("docs/compatibility.md does not say why".to_owned());
    }
    Ok(())
}

/// A transcript as text; a run that came to no end is told as such.
async fn shown(run: tokio::task::JoinHandle<Transcript>) -> String {
    run.await.map_or_else(|_| "it came to no end\n".to_owned(), |transcript| transcript.to_string())
}
