//! Where a process waits for the one that takes over from it: a Unix socket that only its user can reach.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::net::hand_over::Successor;

/// How long to wait when the process or the system is out of something.
const BACK_OFF: Duration = Duration::from_millis(50);

/// A place where successors knock. It is closed when this is dropped, and removed unless it is left to one of them.
#[derive(Debug)]
pub struct Door {
    place: PathBuf,
    /// Device and number of the socket's file, while it is this one's to remove.
    file: Option<(u64, u64)>,
    task: JoinHandle<()>,
}

impl Door {
    /// The place that belongs to a configuration file: every process that runs the same one finds it, and nobody else's
    /// does. It is in `$XDG_RUNTIME_DIR/weir`, or else in a folder of the user's own where temporary files are.
    ///
    /// # Errors
    /// When there is no current folder.
    pub fn place_of(file: &Path) -> io::Result<PathBuf> {
        // Links are not followed: what they point to may change between two starts.
        let file = std::path::absolute(file)?;
        let digest = Sha256::digest(file.as_os_str().as_encoded_bytes());
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let folder = match std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
            Some(folder) => PathBuf::from(folder).join("weir"),
            None => std::env::temp_dir().join(format!("weir-{}", rustix::process::geteuid().as_raw())),
        };
        Ok(folder.join(format!("{name}.sock")))
    }

    /// Makes a door for a place where nobody waits.
    ///
    /// # Errors
    /// When the place is of no use, or another process has its door there.
    pub async fn make(place: &Path) -> io::Result<Made> {
        if UnixStream::connect(place).await.is_ok() {
            let message = "another process that runs waits there";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
        }
        Self::make_beside(place)
    }

    /// Makes a door beside that of the process which is taken over from.
    ///
    /// # Errors
    /// When the place is of no use.
    pub fn make_beside(place: &Path) -> io::Result<Made> {
        own_folder(place)?;
        let beside = place.with_extension(std::process::id().to_string());
        // One that had the same number, and was killed in this very moment.
        let _ = fs::remove_file(&beside);
        let socket = UnixListener::bind(&beside)?;
        let made = Made { place: place.to_owned(), beside, socket: Some(socket) };
        fs::set_permissions(&made.beside, fs::Permissions::from_mode(0o600))?;
        Ok(made)
    }

    /// Leaves the place to a successor, which puts a door of its own there: between a look at whose it is and its removal
    /// it could become another one's.
    pub fn leave(&mut self) {
        self.file = None;
    }
}

/// A door that is made, and that nobody finds yet. It is removed when it is dropped.
#[derive(Debug)]
pub struct Made {
    place: PathBuf,
    beside: PathBuf,
    socket: Option<UnixListener>,
}

impl Made {
    /// Puts it in its place, of one that is left there or of the process that was taken over from. Who comes through it,
    /// and asks, is told to the receiver.
    ///
    /// # Errors
    /// When the place has become of no use.
    pub fn open(mut self) -> io::Result<(Door, mpsc::UnboundedReceiver<Successor>)> {
        let Some(socket) = self.socket.take() else { return Err(io::ErrorKind::NotFound.into()) };
        let file = fs::symlink_metadata(&self.beside)
            .and_then(|file| fs::rename(&self.beside, &self.place).map(|()| (file.dev(), file.ino())))?;
        let (tell, successors) = mpsc::unbounded_channel();
        let task = tokio::task::spawn_local(welcome(socket, tell));
        let place = std::mem::take(&mut self.place);
        Ok((Door { place, file: Some(file), task }, successors))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // One that was put in its place is not there any more.
        let _ = fs::remove_file(&self.beside);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let own = |file: fs::Metadata| Some((file.dev(), file.ino())) == self.file;
        if self.file.is_some() && fs::symlink_metadata(&self.place).is_ok_and(own) {
            // One that cannot be removed does no harm: nobody answers there.
            let _ = fs::remove_file(&self.place);
        }
        // Only now: as long as somebody answers, nobody else takes the place.
        self.task.abort();
    }
}

/// Makes the folder of a place, when it is missing. One that others may write to would let them put theirs there.
fn own_folder(place: &Path) -> io::Result<()> {
    let Some(folder) = place.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut folder = folder.to_owned();
    for _ in 0..MOST_LINKS {
        let found = fs::symlink_metadata(&folder)?;
        if !found.is_symlink() {
            return is_safe(&folder, &found);
        }
        // As `/var/run` is on most systems. It leads where its owner wants, unless others can put another in its place.
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        let beside = parent.unwrap_or(Path::new(".")).to_owned();
        is_safe(&beside, &fs::metadata(&beside)?)?;
        if !is_trusted(&found) {
            return Err(forbidden(&folder));
        }
        folder = beside.join(fs::read_link(&folder)?);
    }
    Err(io::Error::other(format!("{} is one of too many links", folder.display())))
}

/// Links that are followed, one behind the other.
const MOST_LINKS: usize = 8;

/// Whether a file belongs to somebody who may do anything to Weir.
fn is_trusted(file: &fs::Metadata) -> bool {
    file.uid() == rustix::process::geteuid().as_raw() || file.uid() == 0
}

/// Whether nobody else can put a file of his in the place of one in this folder.
fn is_safe(folder: &Path, found: &fs::Metadata) -> io::Result<()> {
    let sticky = found.mode() & 0o1000 != 0;
    if is_trusted(found) && (found.mode() & 0o022 == 0 || sticky) { Ok(()) } else { Err(forbidden(folder)) }
}

fn forbidden(folder: &Path) -> io::Error {
    let message = format!("other users can write to {}; choose a folder of Weir's own", folder.display());
    io::Error::new(io::ErrorKind::PermissionDenied, message)
}

async fn welcome(socket: UnixListener, tell: mpsc::UnboundedSender<Successor>) {
    loop {
        match socket.accept().await {
            Ok((stream, _)) => {
                let tell = tell.clone();
                tokio::task::spawn_local(async move {
                    match Successor::meet(stream).await {
                        // Nobody listens any more only when the process ends.
                        Ok(successor) => drop(tell.send(successor)),
                        // One that only looks whether somebody is there says nothing.
                        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                        Err(error) => tracing::warn!(%error, "somebody asked for the sockets in vain"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no takeover is possible for the moment");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A door where nobody waits, open.
    async fn open(place: &Path) -> io::Result<(Door, mpsc::UnboundedReceiver<Successor>)> {
        Door::make(place).await?.open()
    }

    #[tokio::test(flavor = "local")]
    async fn a_door_is_its_users_alone_and_goes_with_its_process_unless_it_is_left_to_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("below/door");
        let (mut first, _told) = open(&place).await.expect("a door");
        let mode = |path: &Path| fs::symlink_metadata(path).expect("it is there").mode() & 0o7777;
        assert_eq!((mode(&place), mode(&folder.path().join("below"))), (0o600, 0o700));
        let error = open(&place).await.expect_err("it is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let made = Door::make_beside(&place).expect("a door beside it");
        drop(Door::make_beside(&place).expect("another one, which is not wanted after all"));
        assert!(UnixStream::connect(&place).await.is_ok(), "the first one's is still there");
        assert!(made.open().is_err(), "the two had one name");
        let made = Door::make_beside(&place).expect("a door beside it");
        let (second, _told) = made.open().expect("a door in its place");
        first.leave();
        drop(first);
        assert!(UnixStream::connect(&place).await.is_ok(), "the second one's is still there");
        drop(second);
        assert!(!place.exists());
    }

    #[tokio::test(flavor = "local")]
    async fn a_folder_that_others_write_to_is_no_place_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("a mode");
        let error = open(&folder.path().join("door")).await.expect_err("anybody could put one there");
        assert!(error.to_string().contains("other users can write to"), "{error}");
    }

    #[tokio::test(flavor = "local")]
    async fn a_link_to_a_folder_is_followed_where_nobody_else_can_change_it_nor_write_behind_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let mode = |name: &str, mode| {
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).expect("a mode");
        };
        for name in ["run", "open", "anybodys"] {
            fs::create_dir(path(name)).expect("a folder");
        }
        mode("run", 0o755);
        mode("open", 0o777);
        for (link, target) in
            [("link", "run"), ("again", "link"), ("to-open", "open"), ("anybodys/link", "../run")]
        {
            std::os::unix::fs::symlink(target, path(link)).expect("a link");
        }
        mode("anybodys", 0o777);
        for link in ["link", "again"] {
            let (door, _told) = open(&path(link).join("door")).await.expect(link);
            assert!(path("run/door").exists());
            drop(door);
            assert!(!path("run/door").exists());
        }
        std::os::unix::fs::symlink("round", path("round")).expect("a link");
        for link in ["to-open", "anybodys/link", "round"] {
            let error = open(&path(link).join("door")).await.expect_err(link).to_string();
            let expected = if link == "round" { "too many" } else { "other users can write to" };
            assert!(error.to_lowercase().contains(expected), "{link}: {error}");
        }
    }

    #[test]
    fn a_configuration_file_has_one_place_and_another_one_has_another() {
        let place = |file: &str| Door::place_of(Path::new(file)).expect("a place");
        assert_eq!(place("/etc/weir/weir.yaml"), place("/etc/weir/./weir.yaml"));
        assert_ne!(place("/etc/weir/weir.yaml"), place("/etc/weir/other.yaml"));
    }
}
