//! Runs scenarios in Envoy and in Weir, and compares.
//!
//! `cargo xtask parity` installs Envoy and calls it. Without arguments all scenarios run; with some, those whose names
//! contain one of them. `--update` writes down what Envoy does.

use std::path::PathBuf;
use std::process::ExitCode;

use weir_tests::parity::{Transcript, envoy, scenarios, weir};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    tokio::task::LocalSet::new().run_until(run()).await
}

async fn run() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let update = arguments.iter().any(|argument| argument == "--update");
    arguments.retain(|argument| !argument.starts_with("--"));
    let path = PathBuf::from(std::env::var_os("ENVOY").expect("ENVOY is the path of an Envoy"));
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|part| name.contains(part));
    let (mut run, mut differing) = (0, Vec::new());
    for scenario in scenarios::all().into_iter().filter(|scenario| wanted(scenario.name)) {
        run += 1;
        let name = scenario.name;
        let (own, path) = (scenario.clone(), path.clone());
        let in_envoy = shown(tokio::task::spawn_local(async move { envoy::run(&own, &path).await })).await;
        let (file, _) = scenario.files();
        if update {
            std::fs::write(&file, &in_envoy).expect("the folder can be written");
        }
        let in_weir = shown(tokio::task::spawn_local(async move { weir::run(&scenario).await })).await;
        if in_envoy == in_weir {
            println!("same     {name}");
        } else {
            println!("differs  {name}\n{}", difference(&in_envoy, &in_weir));
            differing.push(name);
        }
    }
    println!("{run} scenarios, {} differ: {}", differing.len(), differing.join(", "));
    ExitCode::SUCCESS
}

/// A transcript as text; a run that came to no end is told as such.
async fn shown(run: tokio::task::JoinHandle<Transcript>) -> String {
    run.await.map_or_else(|_| "it came to no end\n".to_owned(), |transcript| transcript.to_string())
}

/// Both, line by line: what is in one only is marked.
fn difference(envoy: &str, weir: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (envoy.lines().collect(), weir.lines().collect());
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
        if i < a.len() && j < b.len() && a[i] == b[j] {
            out.push_str(&format!("           {}\n", a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && lengths[i + 1][j] >= lengths[i][j + 1]) {
            out.push_str(&format!("  envoy    {}\n", a[i]));
            i += 1;
        } else {
            out.push_str(&format!("  weir     {}\n", b[j]));
            j += 1;
        }
    }
    out
}
