//! The configuration file: what it held when it was last taken up, and whether it holds something else now.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::plugin::directory::SETTLE;

/// The configuration file.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    /// What it held when it was last read to be taken up; none when it could not be read.
    taken: Option<String>,
    /// What it held at the last look, and since when: other than what was taken, and perhaps half of something.
    candidate: Option<(Option<String>, Instant)>,
}

/// What a look at the file found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// What was taken.
    Same,
    /// Something else, which may still be written: look again soon.
    Unsettled,
    /// Something else, which has stayed as it is for a while.
    Changed,
}

impl ConfigFile {
    /// A file that is being taken up now.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), taken: std::fs::read_to_string(path).ok(), candidate: None }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks for something else. Two looks some time apart must find the same: the time stamp of a file does not
    /// tell that it is whole, as a file system may cut it before it writes the time down.
    pub fn look(&mut self) -> Look {
        let text = std::fs::read_to_string(&self.path).ok();
        if text == self.taken {
            self.candidate = None;
            return Look::Same;
        }
        match &self.candidate {
            Some((seen, since)) if *seen == text => {
                if since.elapsed() < SETTLE {
                    Look::Unsettled
                } else {
                    Look::Changed
                }
            }
            Some(_) | None => {
                self.candidate = Some((text, Instant::now()));
                Look::Unsettled
            }
        }
    }

    /// Reads what is to be taken up.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&mut self) -> io::Result<String> {
        self.candidate = None;
        let read = std::fs::read_to_string(&self.path);
        self.taken = read.as_ref().ok().cloned();
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_up_was_the_same_for_a_while_and_half_of_it_never_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weir.yaml");
        std::fs::write(&path, "one").expect("it can be written");
        let mut file = ConfigFile::new(&path);
        assert_eq!(file.look(), Look::Same);
        // Cut, with a time stamp of long ago, as if that had not been written down yet.
        let cut = std::fs::File::create(&path).expect("it can be cut");
        cut.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("a time stamp");
        assert_eq!(file.look(), Look::Unsettled);
        std::fs::write(&path, "two").expect("it can be written");
        assert_eq!(file.look(), Look::Unsettled, "it is not what was seen before");
        while file.look() == Look::Unsettled {
            std::thread::yield_now();
        }
        assert_eq!(file.look(), Look::Changed);
        assert_eq!(file.read().expect("it is there"), "two");
        assert_eq!(file.look(), Look::Same);
    }
}
