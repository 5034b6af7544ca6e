//! A look at the plugin directory: which files are not as they were, and what they hold now.
//!
//! It only looks, and remembers nothing: what was seen is handed in. Whoever may write into the directory chooses what
//! lies there, so that nothing is opened before it is known to be a regular file, no link leads out of it, and a look
//! reads no more than so much (docs/adr/0014-plugin-directory.md).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use crate::plugin::digest::Digest;
use crate::plugin::module::MAX_SIZE;

/// By what a file is known to be the same: two looks that find the same stamp find the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// A file that is not as it was.
#[derive(Debug)]
pub enum Change {
    /// It has this content now.
    Content(Stamp, Vec<u8>),
    /// It is there, and cannot be a plugin.
    Unfit(Stamp, String),
    /// It is gone.
    Gone,
}

/// What a look at the directory found.
#[derive(Debug, Default)]
pub struct Scan {
    /// What is not as it was, by plugin; those that are used come first.
    pub changes: Vec<(String, Change)>,
    /// Files that may still be written: look again soon.
    pub unsettled: BTreeMap<String, Candidate>,
    /// Files that were not looked at, as this look had enough to do: look again soon.
    pub waiting: BTreeSet<String>,
    /// How many files there are beyond those that are ever looked at.
    pub surplus: usize,
}

impl Scan {
    /// Whether another look is due soon.
    pub fn is_to_be_continued(&self) -> bool {
        !self.unsettled.is_empty() || !self.waiting.is_empty()
    }
}

/// New content that was found once. It is taken when a later look finds the same: time stamps do not tell that a file
/// is whole, as a file system may cut it before it writes the time down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    content: Digest,
    since: Instant,
}

/// How long new content must have stayed as it is before it counts as whole.
pub const SETTLE: Duration = Duration::from_millis(50);

/// New content that one look takes, in files, so that a plugin that is used never waits for a thousand that are not.
const MOST_TAKEN: usize = 16;

/// Bytes that one look reads, and one file more at the most: they are in memory together.
const MOST_READ: usize = 256 << 20;

/// Files that are looked at. Those that are used are among them whatever there is beside them.
const MOST_FILES: usize = 4096;

/// What looks at the directory remember.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The files whose content is known.
    pub taken: BTreeMap<String, Stamp>,
    /// Those that were about to be taken at the last look.
    pub unsettled: BTreeMap<String, Candidate>,
    /// Files beyond those that are looked at.
    pub surplus: usize,
}

/// Looks at the directory. `seen`: what the last look found. `used`: the plugins that filters use.
///
/// A file that cannot be a plugin is told as [`Change::Unfit`]; names that begin with a dot are passed over, as a shell
/// does with `*.wasm`. What was read is what is used: whatever happens to the path afterwards is another file.
///
/// # Errors
/// When the directory cannot be read.
pub fn scan(directory: &Path, seen: &Seen, used: &BTreeSet<String>) -> io::Result<Scan> {
    let mut scan = Scan::default();
    let folder = OwnedFd::from(File::open(directory)?);
    let mut files = list(&folder)?;
    files.sort_by_cached_key(|(name, _)| (!used.contains(name), name.clone()));
    let present: BTreeSet<String> = files.iter().map(|(name, _)| name.clone()).collect();
    scan.surplus = files.len().saturating_sub(MOST_FILES);
    files.truncate(MOST_FILES);
    let mut allowance = Allowance { files: MOST_TAKEN, bytes: MOST_READ };
    for (name, file) in files {
        let before = seen.unsettled.get(&name);
        let taken = seen.taken.get(&name);
        let looked = match check_name(&name) {
            Ok(()) => look(&folder, &file, taken, &mut allowance),
            Err(reason) => unfit(&folder, &file, taken, reason),
        };
        match looked {
            Look::Same | Look::Gone => {}
            Look::Unfit(stamp, reason) => scan.changes.push((name, Change::Unfit(stamp, reason))),
            Look::Later => {
                scan.unsettled.extend(before.map(|before| (name.clone(), *before)));
                scan.waiting.insert(name);
            }
            Look::Read(stamp, bytes) => match settle(before, Digest::of(&bytes)) {
                Some(candidate) => scan.unsettled.extend([(name, candidate)]),
                None => {
                    allowance.files = allowance.files.saturating_sub(1);
                    scan.changes.push((name, Change::Content(stamp, bytes)));
                }
            },
        }
    }
    let gone = seen.taken.keys().filter(|name| !present.contains(*name));
    scan.changes.extend(gone.map(|name| (name.clone(), Change::Gone)));
    Ok(scan)
}

/// The files that would be plugins: each with the name by which it is known, and that of the file.
fn list(folder: &OwnedFd) -> io::Result<Vec<(String, OsString)>> {
    let mut files = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let file = entry.file_name().to_bytes();
        match file.strip_suffix(b".wasm") {
            Some(stem) if !file.starts_with(b".") => {
                files.push((known_as(stem), OsStr::from_bytes(file).to_owned()))
            }
            Some(_) | None => {}
        }
    }
    Ok(files)
}

/// A plugin's name: the file's without `.wasm`. What cannot be a name is written in ASCII, no two of them alike, so that it
/// can be refused by it.
fn known_as(stem: &[u8]) -> String {
    stem.escape_ascii().to_string()
}

/// Refuses a name that would not fit into paths, metrics and log lines.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.chars().all(plain) && !name.starts_with('.') && name.len() <= 128 {
        return Ok(());
    }
    Err("its name may hold letters, digits, `-`, `_` and `.` only, 128 of them at most; rename the file"
        .into())
}

/// What a look may still do.
struct Allowance {
    files: usize,
    bytes: usize,
}

/// What a look at one file found.
enum Look {
    /// What is known.
    Same,
    /// It went while we looked; the next look knows.
    Gone,
    /// It is for the next look.
    Later,
    Unfit(Stamp, String),
    Read(Stamp, Vec<u8>),
}

fn look(folder: &OwnedFd, file: &OsStr, seen: Option<&Stamp>, allowance: &mut Allowance) -> Look {
    let pinned = match pin(folder, file) {
        Ok(pinned) => pinned,
        Err(errno) => return unfit(folder, file, seen, why_not_followed(errno)),
    };
    let meta = match pinned.metadata() {
        Ok(meta) => meta,
        Err(error) => return unfit(folder, file, seen, format!("it cannot be read: {error}")),
    };
    let stamp = Stamp::of(&meta);
    if seen == Some(&stamp) {
        return Look::Same;
    }
    if !meta.is_file() {
        let reason =
            "it is not a regular file (but a folder, a pipe, a device or a link); copy the file itself";
        return Look::Unfit(stamp, reason.to_owned());
    }
    if meta.mode() & 0o002 != 0 {
        let mode = meta.mode() & 0o7777;
        return Look::Unfit(
            stamp,
            format!("anybody may write it (its mode is {mode:04o}); `chmod o-w` it, or copy it anew"),
        );
    }
    if allowance.files == 0 || allowance.bytes == 0 {
        return Look::Later;
    }
    match read(&pinned) {
        Ok((stamp, bytes)) => {
            allowance.bytes = allowance.bytes.saturating_sub(bytes.len());
            Look::Read(stamp, bytes)
        }
        Err(error) => Look::Unfit(stamp, format!("it cannot be read: {error}")),
    }
}

/// Finds a file without opening it, so that nothing happens to what it is: a pipe, a device, a file that is no more there
/// when it is opened. A link is followed as long as it stays within the directory, as those of Kubernetes do.
fn pin(folder: &OwnedFd, file: &OsStr) -> Result<File, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0..MOST_TRIES;
    loop {
        match openat2(folder, file, flags, Mode::empty(), within) {
            // Something was renamed meanwhile.
            Err(Errno::AGAIN) if tries.next().is_some() => {}
            // An old kernel, or a sandbox that does not know it: then no link is followed.
            Err(Errno::NOSYS | Errno::PERM) => return itself(folder, file),
            found => return found.map(File::from),
        }
    }
}

/// How often a file is looked for that others keep renaming.
const MOST_TRIES: u8 = 32;

/// The entry of a directory itself, be it a link.
fn itself(folder: &OwnedFd, file: &OsStr) -> Result<File, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(folder, file, flags, Mode::empty()).map(File::from)
}

fn why_not_followed(errno: Errno) -> String {
    match errno {
        Errno::XDEV => "it is a link that leads out of the plugin directory; copy the file itself".to_owned(),
        Errno::LOOP => "it is a link that leads nowhere; copy the file itself".to_owned(),
        Errno::NOENT => "it is a link to a file that is not there; copy the file itself".to_owned(),
        other => format!("it cannot be read: {other}"),
    }
}

/// What cannot be opened is known by its entry.
fn unfit(folder: &OwnedFd, file: &OsStr, seen: Option<&Stamp>, reason: String) -> Look {
    match itself(folder, file).map(|entry| entry.metadata()) {
        Ok(Ok(meta)) if seen == Some(&Stamp::of(&meta)) => Look::Same,
        Ok(Ok(meta)) => Look::Unfit(Stamp::of(&meta), reason),
        Ok(Err(_)) | Err(_) => Look::Gone,
    }
}

/// The content of a file that was found, and its stamp from before it was read. One byte over the limit at most: the
/// module says what is wrong with one that large.
fn read(pinned: &File) -> io::Result<(Stamp, Vec<u8>)> {
    // By its descriptor: whatever its path is now, this is what was found.
    let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    let no_wait = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(no_wait).open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    let mut bytes = Vec::new();
    file.take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes)?;
    Ok((stamp, bytes))
}

/// Compares with what the last look found. `None` when the content has stayed as it is for long enough.
fn settle(before: Option<&Candidate>, content: Digest) -> Option<Candidate> {
    match before.filter(|before| before.content == content) {
        Some(same) if same.since.elapsed() >= SETTLE => None,
        Some(same) => Some(*same),
        None => Some(Candidate { content, since: Instant::now() }),
    }
}
