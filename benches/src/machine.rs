//! On what it was measured.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use crate::rounds::Plan;
use crate::tools::Tools;

/// The core of the proxy.
pub const PROXY: &str = "0";
/// The core of the load and of the upstream.
pub const LOAD: &str = "1";

/// How many cores there are.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The machine, the versions, and how long it was measured, as Markdown.
pub fn about(tools: &Tools, plan: &Plan) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("?");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut text = String::new();
    let rounds = format!("{} rounds of {} s", plan.rounds, plan.turn.as_secs());
    let quick = if plan.is_quick { " (quick: to look, not to quote)" } else { "" };
    let lines = [
        format!("{}, {} cores, Linux {}", cpu.trim_start_matches(['\t', ' ', ':']), cores(), kernel.trim()),
        format!("{}; Weir at {}", output("date", &["-u", "+%F %H:%M UTC"]), commit()),
        format!("{rounds}{quick}; the proxy on core {PROXY}, load and upstream on core {LOAD}"),
    ];
    let missing = tools.missing.iter().map(|missing| format!("not there: {missing}"));
    for line in lines.into_iter().chain(tools.versions.iter().cloned()).chain(missing) {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "- {line}");
    }
    text
}

fn commit() -> String {
    output("git", &["describe", "--always", "--dirty"])
}

fn output(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).current_dir(xtask::cargo::root()).output();
    out.map_or_else(|_| "?".to_owned(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}
