//! The time of day of a case, in a process that is not ours: a library that is loaded into it answers for the system, and
//! the time stands still until the case says that some goes by.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A clock.
pub(super) struct Clock {
    file: File,
    path: PathBuf,
    now: Duration,
}

impl Clock {
    /// One that stands at a time, with its file in a folder.
    pub(super) fn at(time: SystemTime, folder: &Path) -> Self {
        let path = folder.join("clock");
        let file = File::create(&path).expect("the folder can be written");
        let mut clock =
            Self { file, path, now: time.duration_since(UNIX_EPOCH).expect("a case is after 1970") };
        clock.pass(Duration::ZERO);
        clock
    }

    /// Lets time go by.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        let nanos = i64::try_from(self.now.as_nanos()).expect("a case is before 2262");
        self.file.write_all_at(&nanos.to_ne_bytes(), 0).expect("the folder can be written");
    }

    /// What a process is started with that is to go by it.
    pub(super) fn variables(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", library().clone()), ("WEIR_CASE_CLOCK", self.path.clone())]
    }
}

/// The library, built once for each run.
fn library() -> &'static PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = xtask::cargo::root().join("tests/src/parity/cases/clock.c");
        let folder = xtask::cargo::target().join("parity");
        std::fs::create_dir_all(&folder).expect("the target folder can be written");
        let library = folder.join("clock.so");
        // By rename: another run may load it just now.
        let beside = folder.join(format!("clock-{}.so", std::process::id()));
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let built = Command::new(compiler)
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(&beside)
            .arg(source)
            .status();
        assert!(built.is_ok_and(|status| status.success()), "a C compiler is needed, as for Weir itself");
        std::fs::rename(beside, &library).expect("the target folder can be written");
        library
    })
}
