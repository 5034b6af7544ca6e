//! A gateway: the `weir` command with a configuration and a plugin directory of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use tempfile::TempDir;

use crate::guests;
use crate::http::{Answer, Client, empty};
use crate::wait::PATIENCE;

/// What a gateway is started with.
#[derive(Debug)]
pub struct Setup {
    folder: Arc<TempDir>,
    config: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// An empty folder and an empty configuration.
    ///
    /// # Panics
    /// When no folder can be made.
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("plugins")).expect("a plugin directory");
        Self { folder: Arc::new(folder), config: String::new() }
    }

    /// The folder of the configuration.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Puts a guest into the plugin directory. Most tests have one of a few; each is compiled once for all of them, unless
    /// there is a cache already.
    ///
    /// # Panics
    /// When something cannot be written.
    #[must_use]
    pub fn plugin(self, name: &str) -> Self {
        let cache = self.folder().join("cache");
        if !cache.exists() {
            std::fs::create_dir(&cache).expect("the folder can be written");
            symlink(guests::compiled(), cache.join("code")).expect("the folder can be written");
        }
        self.plugin_bytes(name, &guests::wasm(name))
    }

    /// Puts some bytes into the plugin directory.
    ///
    /// # Panics
    /// When they cannot be written.
    #[must_use]
    pub fn plugin_bytes(self, name: &str, bytes: &[u8]) -> Self {
        let path = self.folder().join("plugins").join(format!("{name}.wasm"));
        std::fs::write(path, bytes).expect("the plugin directory can be written");
        self
    }

    /// Writes a file beside the configuration.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.folder().join(name), content).expect("the folder can be written");
        self
    }

    /// The configuration. `plugins` need not be in it, and neither need `admin`.
    #[must_use]
    pub fn config(mut self, config: impl Into<String>) -> Self {
        self.config = config.into();
        self
    }

    /// Writes the configuration and returns its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_config(&self) -> PathBuf {
        let path = self.folder().join("weir.yaml");
        std::fs::write(&path, full_config(&self.config)).expect("the configuration can be written");
        path
    }

    /// Starts the gateway and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub fn start(self) -> Gateway {
        let gateway = self.launch();
        gateway.wait_for_log("ready to serve");
        gateway
    }

    /// Starts the gateway, whatever comes of it.
    ///
    /// # Panics
    /// When the process cannot be started.
    pub fn launch(self) -> Gateway {
        let config = self.write_config();
        Gateway::launch(self.folder, config, &["run", "--config"])
    }

    /// Starts a gateway that is to take over from somebody, whatever comes of it.
    ///
    /// # Panics
    /// When the process cannot be started.
    pub fn takes_over(self) -> Gateway {
        let config = self.write_config();
        Gateway::launch(self.folder, config, &["run", "--takeover", "--config"])
    }
}

/// An address that stays free until the test binds it, for tests that need to know it beforehand: on a loopback
/// address (127.`net`.0.1) that no other test uses, so that nobody else is given the port.
///
/// # Panics
/// When nothing can be bound there.
pub fn own_address(net: u8) -> SocketAddr {
    let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::new(127, net, 0, 1), 0))
        .expect("a loopback address");
    listener.local_addr().expect("an address")
}

/// What every test would write: a plugin directory, a cache of its own, two workers.
fn full_config(config: &str) -> String {
    let mut full = String::new();
    let has = |section: &str| config.lines().any(|line| line.starts_with(section));
    if !has("plugins:") {
        full.push_str("plugins: { directory: plugins, cache: cache }\n");
    }
    if !has("runtime:") {
        full.push_str("runtime: { workers: 2 }\n");
    }
    if !has("access_log:") {
        full.push_str("access_log: stdout\n");
    }
    if !has("admin:") {
        full.push_str("admin: { address: \"127.0.0.1:0\" }\n");
    }
    full + config
}

/// A gateway that runs. It is killed when it is dropped.
#[derive(Debug)]
pub struct Gateway {
    folder: Arc<TempDir>,
    config: PathBuf,
    child: Mutex<Child>,
    log: Arc<Log>,
    access: Arc<Log>,
}

impl Gateway {
    fn launch(folder: Arc<TempDir>, config: PathBuf, args: &[&str]) -> Self {
        let mut command = Command::new(guests::weir());
        command.args(args).arg(&config).env("WEIR_LOG", "weir=debug,info");
        // Where processes find those that they take over from.
        command.env("XDG_RUNTIME_DIR", folder.path());
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("weir can be started");
        let log = Log::follow(child.stderr.take().expect("stderr is piped"));
        let access = Log::follow(child.stdout.take().expect("stdout is piped"));
        Self { folder, config, child: Mutex::new(child), log, access }
    }

    /// Starts another process with the same configuration, which is to take over from this one, whatever comes of it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn launch_successor(&self) -> Self {
        Self::launch(Arc::clone(&self.folder), self.config.clone(), &["run", "--takeover", "--config"])
    }

    /// Has another process take over from this one, and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub fn successor(&self) -> Self {
        let successor = self.launch_successor();
        successor.wait_for_log("ready to serve");
        successor
    }

    /// Where a listener really listens.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn address(&self, listener: &str) -> SocketAddr {
        let line = self.wait_for_log(&format!("listening listener=\"{listener}\" "));
        let address = line.rsplit_once("address=").map(|(_, rest)| rest.split(' ').next().unwrap_or(rest));
        address
            .and_then(|address| address.trim().parse().ok())
            .unwrap_or_else(|| panic!("no address in: {line}"))
    }

    /// Where the admin API listens.
    ///
    /// # Panics
    /// When it does not.
    pub fn admin_address(&self) -> SocketAddr {
        let line = self.wait_for_log("the admin API listens address=");
        let address = line.rsplit_once("address=").and_then(|(_, address)| address.trim().parse().ok());
        address.unwrap_or_else(|| panic!("no address in: {line}"))
    }

    /// Asks the admin API.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn admin(&self, method: &str, path: &str) -> Answer {
        let mut client = Client::h1(self.admin_address()).await;
        let request = client.request(method, path).body(empty()).expect("a request");
        client.call(request).await.expect("an answer of the admin API")
    }

    /// What `/plugins` tells of a plugin; null when it does not know it.
    ///
    /// # Panics
    /// When the admin API does not answer.
    pub async fn plugin(&self, name: &str) -> serde_json::Value {
        let mut all = self.admin("GET", "/plugins").await.json();
        let plugins = all["plugins"].as_array_mut().expect("a list of plugins");
        plugins
            .iter_mut()
            .find(|plugin| plugin["name"] == name)
            .map(serde_json::Value::take)
            .unwrap_or_default()
    }

    /// The plugin directory.
    pub fn plugins(&self) -> PathBuf {
        self.folder.path().join("plugins")
    }

    /// The folder of the configuration.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces a plugin as an operator would: copied beside, and renamed into place.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn swap_plugin(&self, name: &str, bytes: &[u8]) {
        let beside = self.folder.path().join(format!("{name}.new"));
        std::fs::write(&beside, bytes).expect("the folder can be written");
        std::fs::rename(&beside, self.plugins().join(format!("{name}.wasm")))
            .expect("a rename within a folder");
    }

    /// Replaces the configuration; it is taken up by itself.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_config(&self, config: &str) {
        std::fs::write(&self.config, full_config(config)).expect("the configuration can be written");
    }

    /// Waits for a log line that holds `text`, and returns it.
    ///
    /// # Panics
    /// When none comes.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.log.wait_for(text, 1)
    }

    /// Waits for the `count`th log line that holds `text`.
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait_for_log_count(&self, text: &str, count: usize) -> String {
        self.log.wait_for(text, count)
    }

    /// Whether a line of the log so far holds `text`.
    pub fn logged(&self, text: &str) -> bool {
        self.log.lines().iter().any(|line| line.contains(text))
    }

    /// Waits for an access log line that holds `text`, and returns it as JSON.
    ///
    /// # Panics
    /// When none comes, or when it is not JSON.
    pub fn wait_for_access(&self, text: &str) -> serde_json::Value {
        let line = self.access.wait_for(text, 1);
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Waits for so many access log lines that hold `text`, and returns all that there are by then, in their order.
    ///
    /// # Panics
    /// When they do not come.
    pub fn wait_for_accesses(&self, text: &str, count: usize) -> Vec<String> {
        self.access.wait_for(text, count);
        self.access.lines()
    }

    /// The process's id.
    ///
    /// # Panics
    /// Never.
    pub fn pid(&self) -> u32 {
        self.child.lock().expect("nobody panicked here").id()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.pid()).expect("a process id");
        let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
        rustix::process::kill_process(pid, signal).expect("the process is there");
    }

    /// Waits until the process ends.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_for_exit(&self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) =
                self.child.lock().expect("nobody panicked here").try_wait().expect("a child")
            {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the process does not end; its log:\n{}",
                self.log.lines().join("\n")
            );
            std::thread::yield_now();
        }
    }

    /// Ends the process in order, and returns what another can be started with: the same folder, with its
    /// configuration, its plugins and its cache as they are now.
    ///
    /// # Panics
    /// When it does not end in order.
    #[must_use]
    pub fn stop(self) -> Setup {
        self.signal(rustix::process::Signal::TERM);
        let status = self.wait_for_exit();
        assert!(status.success(), "{status}");
        let config = std::fs::read_to_string(&self.config).expect("the configuration is there");
        Setup { folder: Arc::clone(&self.folder), config }
    }

    /// The whole log so far.
    pub fn log(&self) -> String {
        self.log.lines().join("\n")
    }

    /// Resident memory, in bytes.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn resident(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process is there");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the kernel tells VmRSS");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
        kib * 1024
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the gateway's log ---\n{}\n---", self.log.lines().join("\n"));
        }
        if let Ok(child) = self.child.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The lines of a pipe as they come.
#[derive(Debug, Default)]
pub struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Log {
    /// Follows a pipe.
    pub fn follow(pipe: impl Read + Send + 'static) -> Arc<Self> {
        let log = Arc::new(Self::default());
        let own = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                own.lines.lock().expect("nobody panics here").0.push(line);
                own.more.notify_all();
            }
            own.lines.lock().expect("nobody panics here").1 = true;
            own.more.notify_all();
        });
        log
    }

    /// What has come so far.
    ///
    /// # Panics
    /// Never.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("nobody panics here").0.clone()
    }

    /// Waits for the `count`th line with a text.
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait_for(&self, text: &str, count: usize) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines.lock().expect("nobody panics here");
        loop {
            if let Some(line) = lines.0.iter().filter(|line| line.contains(text)).nth(count - 1) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.1 || left.is_zero() {
                let all = lines.0.join("\n");
                drop(lines);
                panic!("waited in vain for {text:?} in:\n{all}");
            }
            lines = self.more.wait_timeout(lines, left).expect("nobody panics here").0;
        }
    }
}
