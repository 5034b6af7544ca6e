//! Guests in other languages, built from `tests/guests/foreign` by the compilers that the machine has.
//!
//! A compiler that is missing skips the tests that want it, and says so where it can be seen. With
//! `WEIR_LANGUAGES=all` it fails them.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, bail};

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
                let required = std::env::var_os("WEIR_LANGUAGES").is_some_and(|which| which == "all");
                assert!(!required, "WEIR_LANGUAGES=all, and {} has no compiler here: {what}", self.name());
                // The harness of the tests keeps what is printed by macros to itself.
                let test = std::thread::current().name().unwrap_or("a test").to_owned();
                let line = format!("SKIPPED {test}: no compiler for {}: {what}\n", self.name());
                let _ = std::io::stderr().write_all(line.as_bytes());
                None
            }
        }
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
    const TARGET: &str = "--target=wasm32-wasi";
    let missing = |what: &str| {
        Ok(Built::Missing(format!("{what}; install clang, lld, wasi-libc and libclang-rt-dev-wasm32")))
    };
    if output(Command::new("wasm-ld").arg("--version")).is_err() {
        return missing("there is no wasm-ld");
    }
    for question in ["-print-file-name=crt1-reactor.o", "-print-libgcc-file-name"] {
        match output(Command::new("clang").args([TARGET, question])) {
            Ok(file) if Path::new(file.trim()).is_absolute() && Path::new(file.trim()).exists() => {}
            Ok(file) => return missing(&format!("clang does not find {}", file.trim())),
            Err(_) => return missing("there is no clang"),
        }
    }
    compile(|wasm| {
        let mut clang = Command::new("clang");
        clang.args(dialect).args([TARGET, "-mexec-model=reactor", "-O2", "-o"]);
        clang.arg(wasm).arg(sources("c").join("filter.c"));
        clang
    })
}

fn build_go() -> anyhow::Result<Built> {
    let go = std::env::var_os("WEIR_GO").unwrap_or_else(|| "go".into());
    // Nothing is downloaded, neither a newer Go nor a module.
    let command = || {
        let mut command = Command::new(&go);
        command.envs([("GOTOOLCHAIN", "local"), ("GOPROXY", "off"), ("GOWORK", "off"), ("GOFLAGS", "")]);
        command
    };
    let version = output(command().arg("version")).unwrap_or_else(|_| "none".to_owned());
    if !has_wasmexport(&version) {
        let what = format!("Go 1.24 or later is needed, on PATH or in $WEIR_GO; found: {}", version.trim());
        return Ok(Built::Missing(what));
    }
    compile(|wasm| {
        let mut go = command();
        go.current_dir(sources("go")).env("GOCACHE", folder().join("go-cache"));
        go.envs([("GOOS", "wasip1"), ("GOARCH", "wasm")]);
        go.args(["build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-o"]).arg(wasm).arg(".");
        go
    })
}

/// Whether this Go (`go version go1.24.1 linux/amd64`) builds libraries for WebAssembly: from 1.24 on.
pub fn has_wasmexport(version: &str) -> bool {
    let number = version.split_whitespace().find_map(|word| word.strip_prefix("go1."));
    let minor = number.and_then(|number| number.split(|c: char| !c.is_ascii_digit()).next());
    minor.and_then(|minor| minor.parse::<u32>().ok()).is_some_and(|minor| minor >= 24)
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
