//! Memory of what does nothing.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;

use crate::lab::{Built, Lab, Make};
use crate::machine::{LOAD, PROXY};
use crate::process::{memory, pinned};
use crate::report::{Bar, Report};
use crate::rounds::Plan;
use crate::spread::Spread;
use crate::tools::Tools;
use crate::workloads::growth::{Config, write};

/// The first connections fill what every process keeps; what more of them add is counted.
const FIRST: usize = 1000;
const MORE: usize = 4000;
/// Instances of the filter that is measured.
const INSTANCES: usize = 100;

/// Idle connections that had a request each, and idle instances of a plugin. Each figure is of a process of its own.
pub fn run(mut report: Report, tools: &Tools, built: &Built, plan: &Plan) -> anyhow::Result<Report> {
    let rounds = if plan.is_quick { 1 } else { plan.rounds.min(3) };
    report.columns = ["", "KiB for one"].map(str::to_owned).into();
    report.bar_title = "KiB for one".into();
    for (kind, port) in [("plain", "plain"), ("TLS", "tls_port")] {
        for make in [Make::Nginx, Make::HaProxy, Make::Envoy, Make::Weir] {
            let is_there = match make {
                Make::Nginx | Make::Weir => true,
                Make::HaProxy => tools.haproxy.is_some(),
                Make::Envoy => tools.envoy.is_some(),
            };
            if !is_there {
                continue;
            }
            let figures = (0..rounds).map(|_| connections(tools, built, make, port));
            let figures = figures.collect::<anyhow::Result<Vec<f64>>>()?;
            tell(&mut report, format!("{}, a connection, {kind}", make.name()), &figures);
        }
    }
    let figures = (0..rounds).map(|_| instances(tools, built)).collect::<anyhow::Result<Vec<f64>>>()?;
    tell(&mut report, "weir, an instance of a plugin".into(), &figures);
    let len = std::fs::metadata(built.plugins.join("bench-filter.wasm"))?.len() / 1024;
    report.notes.push(format!(
        "{MORE} connections beyond the first {FIRST}; {INSTANCES} instances of a filter of {len} KiB."
    ));
    Ok(report)
}

fn tell(report: &mut Report, name: String, figures: &[f64]) {
    let value = Spread::of(figures.iter().map(|bytes| bytes / 1024.0));
    report.rows.push(vec![name.clone(), value.show(1)]);
    report.bars.push(Bar { name, value });
}

/// Bytes for a connection.
fn connections(tools: &Tools, built: &Built, make: Make, port: &str) -> anyhow::Result<f64> {
    let mut lab = Lab::start(tools, built)?;
    let proxy = lab.proxy(make, "http")?;
    let tls = (port == "tls_port").then(|| lab.path("tls").display().to_string());
    let port = proxy.port(port)?.to_string();
    let mut held = Vec::new();
    let mut measure = |count: usize| {
        held.push(Idle::open(built, &port, count, tls.as_deref())?);
        settle();
        memory(proxy.pid)
    };
    let before = measure(FIRST)?;
    Ok((measure(MORE)? - before) / MORE as f64)
}

/// Bytes for an instance: of two processes that run at a time, since what they share is halved then for both.
fn instances(tools: &Tools, built: &Built) -> anyhow::Result<f64> {
    let mut lab = Lab::start(tools, built)?;
    let mut start = |instances: usize| {
        let (file, port) = write(&mut lab, &Config { instances, ..Config::default() })?;
        lab.weir(&file, PROXY, port)
    };
    let (few, many) = (start(1)?, start(1 + INSTANCES)?);
    settle();
    Ok((memory(many)? - memory(few)?) / INSTANCES as f64)
}

/// What is to be given back is given back by then.
fn settle() {
    sleep(Duration::from_secs(8));
}

/// Connections that are held.
struct Idle(Child);

impl Idle {
    fn open(built: &Built, port: &str, count: usize, tls: Option<&str>) -> anyhow::Result<Self> {
        let mut command = pinned(LOAD, &built.load);
        command.args(["idle", port, &count.to_string()]).args(tls);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().context("it is piped")?;
        let held = Self(child);
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        anyhow::ensure!(line.trim() == "ready", "connections could not be opened: {line}");
        Ok(held)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        // It ends when its input does; one that is gone needs no waiting.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
