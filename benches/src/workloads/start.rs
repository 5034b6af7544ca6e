//! From the start of the process until it is ready.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::lab::{Built, Lab};
use crate::process::stop;
use crate::report::{Bar, Report};
use crate::rounds::Plan;
use crate::spread::Spread;
use crate::tools::Tools;
use crate::workloads::growth::{Config, write};

const PLUGINS: usize = 10;

/// The first start, which compiles the plugins and fills the cache, and those after it.
pub fn run(mut report: Report, tools: &Tools, built: &Built, plan: &Plan) -> anyhow::Result<Report> {
    let mut lab = Lab::start(tools, built)?;
    let config = Config { plugins: PLUGINS, instances: 0, ..Config::default() };
    let (file, _) = write(&mut lab, &config)?;
    let text = std::fs::read_to_string(&file)?;
    let admin = text
        .lines()
        .find_map(|line| line.strip_prefix("admin:")?.rsplit(':').next()?.split('"').next()?.parse().ok());
    let admin: u16 = admin.unwrap_or_default();
    let start = || -> anyhow::Result<f64> {
        let begun = Instant::now();
        // On all cores, as it is run.
        let mut command = Command::new(&built.weir);
        let child = command
            .args(["run", "--config"])
            .arg(&file)
            .env("WEIR_LOG", "error")
            .stdin(Stdio::null())
            .spawn()?;
        let ready = ready(admin, begun + Duration::from_secs(120));
        let took = begun.elapsed();
        stop(child);
        ready?;
        Ok(took.as_secs_f64() * 1e3)
    };
    let cold = start()?;
    let warm = (0..plan.rounds * 4).map(|_| start()).collect::<anyhow::Result<Vec<f64>>>()?;
    report.columns = ["", "ms until ready"].map(str::to_owned).into();
    report.bar_title = "ms until ready".into();
    for (name, figures) in [("weir, an empty cache", vec![cold]), ("weir, a warm cache", warm)] {
        let value = Spread::of(figures.into_iter());
        report.rows.push(vec![name.to_owned(), value.show(0)]);
        report.bars.push(Bar { name: name.to_owned(), value });
    }
    report.notes.push(format!(
        "{PLUGINS} plugins of {} KiB each.",
        std::fs::metadata(built.plugins.join("bench-filter.wasm"))?.len() / 1024
    ));
    Ok(report)
}

/// Asks until it is ready.
fn ready(port: u16, deadline: Instant) -> anyhow::Result<()> {
    loop {
        if asked(port).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "Weir does not become ready");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn asked(port: u16) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}
