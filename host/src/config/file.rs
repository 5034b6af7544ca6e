//! Files that the configuration names and others write: known by their stamps, and read without waiting for anybody.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;

/// By what a file is known to be the same: two looks that find the same stamp find the same content, once it
/// [has settled](Self::has_settled).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// How long after a change there may be another one with the same time stamp: some file systems write down no more than
/// every other second.
const GRANULARITY: Duration = Duration::from_secs(3);

impl FileStamp {
    /// That of a file with this metadata.
    pub fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// That of a file, links followed; none when it is not to be had.
    pub fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|meta| Self::of(&meta))
    }

    /// Whether whatever changes the file from `now` on changes its stamp, too.
    pub fn has_settled(&self, now: SystemTime) -> bool {
        let (newest, _) = self.modified.max(self.changed);
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let newest = u64::try_from(newest).unwrap_or(0);
        now.as_secs().checked_sub(newest).is_some_and(|age| age > GRANULARITY.as_secs())
    }
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// The system does not let it.
    #[error("cannot be read: {0}; relative paths start at the configuration file")]
    Failed(#[from] io::Error),
    /// Whoever opened it might wait, or would not find the same twice.
    #[error("is no regular file, but a folder, a pipe or a device; give a file")]
    Irregular,
    /// It has more bytes than are read.
    #[error("is larger than {} MiB, which is the most that is read; give the right file", .0 >> 20)]
    Large(u64),
}

/// What a regular file holds. Nothing else is opened, and no more than `most` bytes are read.
///
/// # Errors
/// Why it is not read.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, Unread> {
    // Before it is opened: that alone does something to a pipe or a device.
    is_readable(&std::fs::metadata(path)?, most)?;
    // It may be another one by now, for which nobody waits either.
    let no_wait = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file: File = OpenOptions::new().read(true).custom_flags(no_wait).open(path)?;
    is_readable(&file.metadata()?, most)?;
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    // It may have grown.
    if bytes.len() as u64 > most { Err(Unread::Large(most)) } else { Ok(bytes) }
}

fn is_readable(meta: &Metadata, most: u64) -> Result<(), Unread> {
    if !meta.is_file() {
        Err(Unread::Irregular)
    } else if meta.size() > most {
        Err(Unread::Large(most))
    } else {
        Ok(())
    }
}
