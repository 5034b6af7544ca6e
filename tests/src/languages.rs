//! Guests in other languages, built from `tests/guests/foreign` by the compilers that the machine has.
//!
//! A compiler that is missing skips the tests that want it, and says so where it can be seen. With
//! `WEIR_LANGUAGES=all` it fails them.

mod go;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, bail};

pub use self::go::has_wasmexport;

/// A language that guests are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// C, with clang and wasi-libc.
    C,
    /// C++: the same source.
    Cpp,
    /// Go, from 1.24 on.
    Go,
    /// AssemblyScript, whose compiler npm installs.
    AssemblyScript,
}

impl Language {
    /// The name that its guest gives itself.
    pub fn name(self) -> &'static str {
        match self {
            Self::C => "C",
            Self::Cpp => "C++",
            Self::Go => "Go",
            Self::AssemblyScript => "AssemblyScript",
        }
    }

    /// A cache for what Weir compiles of its guest. That takes long, so it is kept, as the compilers' own caches are.
    pub fn cache(self) -> PathBuf {
        folder().join("cache").join(self.name())
    }

    /// The bytes of its guest; `None` when its compiler is missing, which has then been said on stderr.
    ///
    /// # Panics
    /// When the compiler is there and the guest does not build, and when it must be there and is not.
    pub fn guest(self) -> Option<&'static [u8]> {
        static BUILT: [OnceLock<Built>; 4] = [const { OnceLock::new() }; 4];
        let build = || {
            let built = match self {
                Self::C => build_c(&["-x", "c", "-std=gnu11"]),
                Self::Cpp => build_c(&["-x", "c++", "-std=c++17", "-fno-exceptions", "-fno-rtti"]),
                Self::Go => build_go(),
                Self::AssemblyScript => build_assemblyscript(),
            };
            built.unwrap_or_else(|error| panic!("the guest in {} does not build: {error:#}", self.name()))
        };
        match BUILT[self as usize].get_or_init(build) {
            Built::Guest(bytes) => Some(bytes),
            Built::Missing(what) => {
                self.skip(what);
                None
            }
        }
    }

    /// What a command needs in its environment to find the compiler, as the build of a manifest; `None` when it is
    /// missing, which has then been said on stderr.
    ///
    /// # Panics
    /// When it must be there and is not.
    pub fn environment(self) -> Option<Vec<(&'static str, OsString)>> {
        let found = match self {
            Self::C | Self::Cpp => missing_for_c().map_or_else(|| Ok(Vec::new()), Err),
            Self::Go => go::find().map(|go| {
                let own = go.parent().map(Path::to_path_buf);
                let paths = std::env::var_os("PATH").unwrap_or_default();
                let paths = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&paths)));
                let path = ("PATH", paths.unwrap_or_default());
                go_environment().into_iter().chain([path]).collect()
            }),
            Self::AssemblyScript => Ok(Vec::new()),
        };
        found.map_err(|what| self.skip(&what)).ok()
    }

    /// Says that a test is skipped, and why.
    fn skip(self, what: &str) {
        let required = std::env::var_os("WEIR_LANGUAGES").is_some_and(|which| which == "all");
        assert!(!required, "WEIR_LANGUAGES=all, and {} has no compiler here: {what}", self.name());
        // The harness of the tests keeps what is printed by macros to itself.
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let line = format!("SKIPPED {test}: no compiler for {}: {what}\n", self.name());
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// What came of a build that did not fail.
enum Built {
    Guest(Vec<u8>),
    /// The compiler is not there; what it would take.
    Missing(String),
}

fn sources(language: &str) -> PathBuf {
    xtask::cargo::root().join("tests/guests/foreign").join(language)
}

fn build_c(dialect: &[&str]) -> anyhow::Result<Built> {
    if let Some(what) = missing_for_c() {
        return Ok(Built::Missing(what));
    }
    compile(|wasm| {
        let mut clang = Command::new("clang");
        clang.args(dialect).args([C_TARGET, "-mexec-model=reactor", "-O2", "-o"]);
        clang.arg(wasm).arg(sources("c").join("filter.c"));
        clang
    })
}

/// The target of C, as clang calls it.
const C_TARGET: &str = "--target=wasm32-wasi";

/// What is missing for C, when something is.
fn missing_for_c() -> Option<String> {
    let missing =
        |what: &str| Some(format!("{what}; install clang, lld, wasi-libc and libclang-rt-dev-wasm32"));
    if output(Command::new("wasm-ld").arg("--version")).is_err() {
        return missing("there is no wasm-ld");
    }
    for question in ["-print-file-name=crt1-reactor.o", "-print-libgcc-file-name"] {
        match output(Command::new("clang").args([C_TARGET, question])) {
            Ok(file) if Path::new(file.trim()).is_absolute() && Path::new(file.trim()).exists() => {}
            Ok(file) => return missing(&format!("clang does not find {}", file.trim())),
            Err(_) => return missing("there is no clang"),
        }
    }
    None
}

/// What Go is told: nothing is downloaded, neither a newer Go nor a module.
fn go_environment() -> [(&'static str, OsString); 5] {
    let plain = [("GOTOOLCHAIN", "local"), ("GOPROXY", "off"), ("GOWORK", "off"), ("GOFLAGS", "")];
    let [a, b, c, d] = plain.map(|(name, value)| (name, value.into()));
    [a, b, c, d, ("GOCACHE", folder().join("go-cache").into())]
}

fn build_go() -> anyhow::Result<Built> {
    let go = match go::find() {
        Ok(go) => go,
        Err(what) => return Ok(Built::Missing(what)),
    };
    compile(|wasm| {
        let mut go = Command::new(&go);
        go.current_dir(sources("go")).envs(go_environment());
        go.envs([("GOOS", "wasip1"), ("GOARCH", "wasm")]);
        go.args(["build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-o"]).arg(wasm).arg(".");
        go
    })
}

fn build_assemblyscript() -> anyhow::Result<Built> {
    for tool in ["node", "npm"] {
        if output(Command::new(tool).arg("--version")).is_err() {
            return Ok(Built::Missing(format!("there is no {tool}; install Node.js 20 or later")));
        }
    }
    let modules = match install_assemblyscript() {
        Ok(modules) => modules,
        Err(error) => {
            return Ok(Built::Missing(format!("npm could not install assemblyscript: {error:#}")));
        }
    };
    compile(|wasm| {
        let mut asc = Command::new("node");
        asc.current_dir(sources("assemblyscript")).arg(modules.join("assemblyscript/bin/asc.js"));
        asc.args(["filter.ts", "-O", "--use", "abort=host/abort", "-o"]).arg(wasm);
        asc
    })
}

/// Installs the compiler that `package.json` names into a folder of its own, and returns its `node_modules`.
fn install_assemblyscript() -> anyhow::Result<PathBuf> {
    let wanted = fs::read(sources("assemblyscript").join("package.json"))?;
    let installed = folder().join("assemblyscript");
    let modules = installed.join("node_modules");
    if fs::read(installed.join("package.json")).is_ok_and(|found| found == wanted) && modules.is_dir() {
        return Ok(modules);
    }
    // Beside it, and put in place when it is whole: others may be at it too.
    fs::create_dir_all(folder())?;
    let beside = tempfile::tempdir_in(folder())?;
    fs::write(beside.path().join("package.json"), wanted)?;
    let mut npm = Command::new("npm");
    npm.current_dir(beside.path()).args(["install", "--ignore-scripts", "--no-audit", "--no-fund"]);
    output(npm.args(["--no-package-lock", "--fetch-retries=1"]))?;
    if installed.exists() {
        fs::remove_dir_all(&installed)?;
    }
    fs::rename(beside.keep(), &installed)?;
    Ok(modules)
}

/// Where compilers keep what they want to find again.
fn folder() -> PathBuf {
    xtask::cargo::target().join("foreign")
}

/// Runs a compiler that writes the file it is told, and returns what it wrote.
fn compile(compiler: impl FnOnce(&Path) -> Command) -> anyhow::Result<Built> {
    let folder = tempfile::tempdir()?;
    let wasm = folder.path().join("filter.wasm");
    output(&mut compiler(&wasm))?;
    Ok(Built::Guest(fs::read(&wasm).context("the compiler wrote nothing")?))
}

/// What a command prints; an error with all that it printed when it fails.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let program: OsString = command.get_program().to_owned();
    let output = command.output().with_context(|| format!("{} cannot be run", program.display()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        bail!("{}: {}\n{}", program.display(), text(&output.stderr), text(&output.stdout));
    }
    Ok(text(&output.stdout))
}
