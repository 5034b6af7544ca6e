//! Load: each runs on its core for a while, and tells how much was done.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::lab::Built;
use crate::machine::LOAD;
use crate::process::pinned;

/// The headers that the filters read. Every request has them, in every workload of HTTP/1.1 that wrk loads.
const HEADERS: [&str; 3] = ["User-Agent: bench", "X-Tenant: payments", "X-Role: reader"];

/// What wrk saw.
#[derive(Debug, Clone, Copy)]
pub struct Wrk {
    /// Requests that were answered.
    pub requests: f64,
    /// Gigabytes (10^9 bytes) that were read.
    pub gigabytes: f64,
}

/// HTTP/1.1 on connections that are kept.
///
/// # Errors
/// When a request fails.
pub fn wrk(url: &str, connections: usize, duration: Duration) -> anyhow::Result<Wrk> {
    wrk_on(&[LOAD], url, connections, duration)
}

/// The same from some cores, with a thread on each.
///
/// # Errors
/// When a request fails.
pub fn wrk_on(cores: &[&str], url: &str, connections: usize, duration: Duration) -> anyhow::Result<Wrk> {
    let mut command = pinned(&cores.join(","), Path::new("wrk"));
    command.args([&format!("-t{}", cores.len()), &format!("-c{connections}")]);
    command.args(["--timeout", "20s", &format!("-d{}s", duration.as_secs())]);
    for header in HEADERS {
        command.args(["-H", header]);
    }
    let text = output(command.arg(url))?;
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("requests to {url} failed:\n{text}");
    }
    // `  123456 requests in 5.00s, 18.37MB read`
    let line = text.lines().find_map(|line| line.trim().split_once(" requests in "));
    let (count, rest) = line.with_context(|| format!("wrk tells how many requests:\n{text}"))?;
    let read = rest.split_once(", ").and_then(|(_, read)| bytes(read.trim_end_matches(" read").trim()));
    let read = read.with_context(|| format!("wrk tells how much it read:\n{text}"))?;
    Ok(Wrk { requests: count.trim().parse()?, gigabytes: read / 1e9 })
}

/// A size as wrk writes it: `18.37MB`, in powers of 1024.
fn bytes(text: &str) -> Option<f64> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(number.len()..)? {
        "B" => 1.0,
        "KB" => 1024.0,
        "MB" => 1024.0 * 1024.0,
        "GB" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * unit)
}

/// HTTP/2 over TLS: eight connections of sixteen streams. Returns the requests that succeeded.
///
/// # Errors
/// When a request fails.
pub fn h2load(port: u16, duration: Duration) -> anyhow::Result<f64> {
    let mut command = pinned(LOAD, Path::new("h2load"));
    command.args(["-t1", "-c8", "-m16", "-D", &duration.as_secs().to_string()]);
    let text = output(command.arg(format!("https://127.0.0.1:{port}/")))?;
    // `requests: 95000 total, 95128 started, 95000 done, 95000 succeeded, 0 failed, 0 errored, 0 timeout`
    let line = text.lines().find(|line| line.starts_with("requests:")).unwrap_or_default();
    let number = |word: &str| {
        let part = line.split(", ").find_map(|part| part.strip_suffix(word));
        part.and_then(|part| part.trim().parse::<f64>().ok())
    };
    let succeeded =
        number("succeeded").with_context(|| format!("h2load tells how many succeeded:\n{text}"))?;
    // What is under way when the time is over is not counted at all.
    let failed = number("failed").with_context(|| format!("h2load tells how many failed:\n{text}"))?;
    if succeeded == 0.0 || failed > 0.0 || !text.contains("protocol: h2") {
        bail!("requests failed, or are not HTTP/2:\n{text}");
    }
    Ok(succeeded)
}

/// The generator of our own, and the number that it prints by a name.
///
/// # Errors
/// When it fails.
pub fn own(built: &Built, args: &[&str], number: &str) -> anyhow::Result<f64> {
    let text = output(pinned(LOAD, &built.load).args(args))?;
    number_of(&text, number)
}

/// The number that stands behind a name in `name=1 other=2`.
///
/// # Errors
/// When there is none.
pub fn number_of(text: &str, name: &str) -> anyhow::Result<f64> {
    let found = text.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    found.and_then(|number| number.parse().ok()).with_context(|| format!("no {name} in {text}"))
}

/// What a command says. Not even a warning on stderr goes unseen, when it fails.
///
/// # Errors
/// When it fails.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("cannot run {shown}"))?;
    let text = String::from_utf8_lossy(&stdout).into_owned();
    if !status.success() {
        bail!("{shown} failed: {status}\n{text}{}", String::from_utf8_lossy(&stderr));
    }
    Ok(text)
}
