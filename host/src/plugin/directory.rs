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
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use crate::config::file::FileStamp;
use crate::plugin::digest::Digest;
use crate::plugin::module::MAX_SIZE;

/// By what a file is known to be the same: two looks that find the same stamp find the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    file: FileStamp,
    /// That of its signature, when one is asked for and there.
    signature: Option<FileStamp>,
}

/// What a file holds.
#[derive(Debug)]
pub struct Content {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The content of the signature beside it, or why there is none.
    pub signature: Result<Vec<u8>, String>,
}

impl Content {
    fn digests(&self) -> (Digest, Option<Digest>) {
        (Digest::of(&self.bytes), self.signature.as_ref().ok().map(|signature| Digest::of(signature)))
    }
}

/// A file that is not as it was.
#[derive(Debug)]
pub enum Change {
    /// It has this content now.
    Content(Stamp, Content),
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
    /// Of the file and of its signature.
    content: (Digest, Option<Digest>),
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

/// What a look is for.
#[derive(Debug, Clone)]
pub struct Purpose {
    /// The plugins that filters use.
    pub used: BTreeSet<String>,
    /// Whether plugins have to be signed.
    pub signed: bool,
}

/// Looks at the directory. `seen`: what the last look found.
///
/// A file that cannot be a plugin is told as [`Change::Unfit`]; names that begin with a dot are passed over, as a shell
/// does with `*.wasm`. What was read is what is used: whatever happens to the path afterwards is another file.
///
/// # Errors
/// When the directory cannot be read.
pub fn scan(directory: &Path, seen: &Seen, purpose: &Purpose) -> io::Result<Scan> {
    let mut scan = Scan::default();
    let folder = OwnedFd::from(File::open(directory)?);
    let mut files = list(&folder)?;
    files.sort_by_cached_key(|(name, _)| (!purpose.used.contains(name), name.clone()));
    let present: BTreeSet<String> = files.iter().map(|(name, _)| name.clone()).collect();
    scan.surplus = files.len().saturating_sub(MOST_FILES);
    files.truncate(MOST_FILES);
    let mut allowance = Allowance { files: MOST_TAKEN, bytes: MOST_READ };
    for (name, file) in files {
        let before = seen.unsettled.get(&name);
        let taken = seen.taken.get(&name);
        let looked = match check_name(&name) {
            Ok(()) => Place { folder: &folder, file: &file, taken }.look(purpose.signed, &mut allowance),
            Err(reason) => Place { folder: &folder, file: &file, taken }.unfit(reason),
        };
        match looked {
            Look::Same | Look::Gone => {}
            Look::Unfit(stamp, reason) => scan.changes.push((name, Change::Unfit(stamp, reason))),
            Look::Later => {
                scan.unsettled.extend(before.map(|before| (name.clone(), *before)));
                scan.waiting.insert(name);
            }
            Look::Read(stamp, content) => match settle(before, content.digests()) {
                Some(candidate) => scan.unsettled.extend([(name, candidate)]),
                None => {
                    allowance.files = allowance.files.saturating_sub(1);
                    scan.changes.push((name, Change::Content(stamp, content)));
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
    Read(Stamp, Content),
}

/// Where a file is, and what is known of it.
struct Place<'a> {
    folder: &'a OwnedFd,
    file: &'a OsStr,
    taken: Option<&'a Stamp>,
}

impl Place<'_> {
    fn look(&self, signed: bool, allowance: &mut Allowance) -> Look {
        let (pinned, meta) = match pin(self.folder, self.file) {
            Ok(found) => found,
            Err(reason) => return self.unfit(reason),
        };
        let signature = if signed { self.signature() } else { Err(String::new()) };
        let signature_stamp = signature.as_ref().ok().map(|(_, stamp)| *stamp);
        let stamp = Stamp { file: FileStamp::of(&meta), signature: signature_stamp };
        if self.taken == Some(&stamp) {
            return Look::Same;
        }
        if !meta.is_file() {
            return Look::Unfit(stamp, NO_FILE.to_owned());
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
        match read(&pinned, MAX_SIZE) {
            Ok((file, bytes)) => {
                allowance.bytes = allowance.bytes.saturating_sub(bytes.len());
                let signature = signature.and_then(|(pinned, _)| {
                    let text = read(&pinned, MOST_OF_SIGNATURE).map(|(_, text)| text);
                    text.map_err(|error| format!("it cannot be read: {error}"))
                });
                Look::Read(Stamp { file, signature: signature_stamp }, Content { bytes, signature })
            }
            Err(error) => Look::Unfit(stamp, format!("it cannot be read: {error}")),
        }
    }

    /// The signature beside the file, or why there is none.
    fn signature(&self) -> Result<(File, FileStamp), String> {
        let file = OsString::from_vec([self.file.as_bytes(), b".sig"].concat());
        let (pinned, meta) = match itself(self.folder, &file) {
            Err(Errno::NOENT) => return Err("it is not there".to_owned()),
            Ok(_) | Err(_) => pin(self.folder, &file)?,
        };
        if meta.is_file() { Ok((pinned, FileStamp::of(&meta))) } else { Err(NO_FILE.to_owned()) }
    }

    /// What cannot be opened is known by its entry.
    fn unfit(&self, reason: String) -> Look {
        let Ok(Ok(meta)) = itself(self.folder, self.file).map(|entry| entry.metadata()) else {
            return Look::Gone;
        };
        let stamp = Stamp { file: FileStamp::of(&meta), signature: None };
        if self.taken == Some(&stamp) { Look::Same } else { Look::Unfit(stamp, reason) }
    }
}

const NO_FILE: &str =
    "it is not a regular file (but a folder, a pipe, a device or a link); copy the file itself";

/// Bytes of a signature that are read: those of minisign's have some hundred.
const MOST_OF_SIGNATURE: usize = 4096;

/// Finds a file without opening it, so that nothing happens to what it is: a pipe, a device, a file that is no more there
/// when it is opened. A link is followed as long as it stays within the directory, as those of Kubernetes do.
///
/// # Errors
/// Why it cannot be read.
fn pin(folder: &OwnedFd, file: &OsStr) -> Result<(File, Metadata), String> {
    let pinned = find(folder, file).map_err(why_not_followed)?;
    let meta = pinned.metadata().map_err(|error| format!("it cannot be read: {error}"))?;
    Ok((pinned, meta))
}

fn find(folder: &OwnedFd, file: &OsStr) -> Result<File, Errno> {
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

/// The content of a file that was found, and its stamp from before it was read. One byte over the limit at most: whoever
/// is given it says what is wrong with one that large.
fn read(pinned: &File, most: usize) -> io::Result<(FileStamp, Vec<u8>)> {
    // By its descriptor: whatever its path is now, this is what was found.
    let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    let no_wait = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(no_wait).open(path)?;
    let stamp = FileStamp::of(&file.metadata()?);
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok((stamp, bytes))
}

/// Compares with what the last look found. `None` when the content has stayed as it is for long enough.
fn settle(before: Option<&Candidate>, content: (Digest, Option<Digest>)) -> Option<Candidate> {
    match before.filter(|before| before.content == content) {
        Some(same) if same.since.elapsed() >= SETTLE => None,
        Some(same) => Some(*same),
        None => Some(Candidate { content, since: Instant::now() }),
    }
}
