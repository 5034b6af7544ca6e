//! The tables of the neighbour check.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::soak::floods::Offered;
use crate::soak::idle::Outcome;
use crate::soak::load::Measured;
use crate::soak::neighbours::Outcomes;

/// The head of a table in Markdown, for these proxies.
pub fn head(proxies: &[&str]) -> String {
    let columns = |proxy: &&str| {
        format!(
            " {proxy} | failed, of | p99 alone → beside, other listener (ms) | same listener (ms) | MiB before, most, after | descriptors left | SIGTERM |"
        )
    };
    let head: String = proxies.iter().map(columns).collect();
    let line = "---|".repeat(proxies.len() * 7 + 1);
    format!("| guest |{head}\n|{line}")
}

/// The head of the table of floods.
pub fn flood_head() -> String {
    let head = head(&["Weir"]).replace("| guest |", "| flood |");
    let (first, line) = head.split_once('\n').unwrap_or((&head, ""));
    format!("{first} offered: connections, KiB | CPU of Weir, of the flood |\n{line}---|---|")
}

/// The row of a flood, after so many runs. It went on for `duration`.
pub fn flood_row(
    name: &str,
    outcomes: &Outcomes,
    runs: u64,
    offered: &Offered,
    duration: Duration,
) -> String {
    let bytes = offered.bytes.load(Ordering::Relaxed);
    let part = |spent: Duration| 100.0 * spent.as_secs_f64() / duration.as_secs_f64();
    let own = Duration::from_micros(offered.cpu.load(Ordering::Relaxed));
    format!(
        "| {name} |{} {}, {} | {:.0} %, {:.0} % |",
        cells(outcomes, runs),
        outcomes.provoked,
        bytes >> 10,
        part(outcomes.cpu),
        part(own)
    )
}

/// The cells of one proxy in a row, after so many runs.
pub fn cells(outcomes: &Outcomes, runs: u64) -> String {
    if outcomes.silent.is_some() {
        return " **does not serve** | all | – | – | – | – | – |".to_owned();
    }
    let failed: usize = outcomes.neighbours.iter().map(|[_, beside]| beside.failed()).sum();
    let answered: usize = outcomes.neighbours.iter().map(|[_, beside]| beside.latencies.len()).sum();
    let [before, peak, after] = outcomes.usage;
    let left = after.descriptors.saturating_sub(before.descriptors);
    let verdict = if outcomes.breaches.is_empty() { "holds" } else { "**breach**" };
    let times = if runs > 1 { format!(", run {runs}") } else { String::new() };
    let ended =
        outcomes.ended.map_or("**ignored**".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
    let [other, same] = outcomes.neighbours.each_ref().map(latencies);
    let mib = |bytes: u64| bytes >> 20;
    format!(
        " {verdict}{times} | {failed} of {} | {other} | {same} | {}, {}, {} | {left} | {ended} |",
        failed + answered,
        mib(before.resident),
        mib(peak.resident),
        mib(after.resident)
    )
}

/// The head of the table of idle connections.
pub const IDLE_HEAD: &str = "| proxy | connections | dropped | MiB before, with all open, after they were idle | KiB each |\n|---|---|---|---|---|";

/// The row of a proxy with idle connections.
pub fn idle_row(name: &str, outcome: &Outcome) -> String {
    let [before, open, idle] = outcome.usage.map(|usage| usage.resident >> 20);
    let Outcome { opened, kept, .. } = outcome;
    let (dropped, each) = (opened - kept, outcome.kib_each());
    format!("| {name} | {opened} | {dropped} | {before}, {open}, {idle} | {each:.1} |")
}

fn latencies([alone, beside]: &[Measured; 2]) -> String {
    let ms = |measured: &Measured| measured.quantile(0.99).as_secs_f64() * 1000.0;
    format!("{:.2} → {:.2}", ms(alone), ms(beside))
}
