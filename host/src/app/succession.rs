//! Taking over from the process before this one, and handing over to the next (ADR 0016).

use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use crate::config::Config;
use crate::net::hand_over::{Door, Predecessor, Successor};
use crate::reload::Control;

/// Where the next process finds this one.
fn place(config: &Config) -> anyhow::Result<PathBuf> {
    match &config.sections.runtime.takeover_socket {
        Some(place) => Ok(place.clone()),
        None => Ok(Door::place_of(&config.file)?),
    }
}

/// Asks the process that serves this configuration for its sockets. `None` when there is none.
///
/// # Errors
/// When there is one, and it does not hand them over.
pub async fn ask(control: &mut Control) -> anyhow::Result<Option<Predecessor>> {
    let place = place(&control.config)?;
    let asked = async {
        let Some(mut old) = Predecessor::find(&place).await? else { return Ok(None) };
        let sockets = old.sockets().await?;
        Ok::<_, std::io::Error>(Some((old, sockets)))
    };
    match asked.await {
        Ok(Some((old, sockets))) => {
            control.sockets.inherit(sockets);
            Ok(Some(old))
        }
        Ok(None) => {
            let place = place.display();
            tracing::warn!(%place, "there is no process to take over from; addresses are bound as in any start");
            Ok(None)
        }
        Err(error) => Err(anyhow::anyhow!(
            "the Weir that waits at {} does not hand over its sockets: {error}; it goes on, unless it has ended",
            place.display()
        )),
    }
}

/// The next processes that ask for the sockets, as they come.
#[derive(Default)]
pub struct Succession(Option<(Door, mpsc::UnboundedReceiver<Successor>)>);

impl Succession {
    /// Opens the door to them: in the place of the process that was taken over from, or else where nobody's is. Where it
    /// cannot be opened, and the configuration does not name the place, that is only logged.
    ///
    /// # Errors
    /// When the configuration names a place that is of no use.
    pub async fn open(config: &Config, taken_over: bool) -> anyhow::Result<Self> {
        let place = place(config)?;
        let opened = if taken_over { Door::replace(&place) } else { Door::open(&place).await };
        match opened {
            Ok(open) => {
                tracing::debug!(place = %place.display(), "a new process can take over");
                Ok(Self(Some(open)))
            }
            Err(error) => Self::none(config, &place, &error),
        }
    }

    fn none(config: &Config, place: &Path, error: &std::io::Error) -> anyhow::Result<Self> {
        let (shown, cure) = (place.display(), "give a path of its own in `runtime.takeover_socket`");
        if config.sections.runtime.takeover_socket.is_some() {
            anyhow::bail!("the takeover socket {shown} cannot be made: {error}; {cure}");
        }
        tracing::warn!("no process can take over from this one: {shown} cannot be made: {error}; {cure}");
        Ok(Self::default())
    }

    /// Leaves the place of the door to the one that has taken over.
    pub fn leave(&mut self) {
        if let Some((door, _)) = &mut self.0 {
            door.leave();
        }
    }

    /// The next one that asks.
    pub async fn next(&mut self) -> Option<Successor> {
        match &mut self.0 {
            Some((_, successors)) => successors.recv().await,
            None => None,
        }
    }
}

/// Hands the sockets over. True once the new process serves; when it does not, everything goes on as it was.
pub async fn hand_over(control: &Control, successor: &mut Successor) -> bool {
    let (pid, version) = (successor.pid, successor.version.clone());
    tracing::info!(pid, version, "a new process asks for the sockets");
    let lent = control.sockets.lend();
    let served = match lent {
        Ok((lent, sockets)) => successor.serve(lent, &sockets).await,
        Err(error) => Err(error),
    };
    match served {
        Ok(()) => {
            tracing::info!(pid, version, "the new process serves");
            true
        }
        Err(error) => {
            tracing::error!(pid, version, %error, "the new process did not take over; this one goes on");
            successor.refuse(&format!("the running process goes on: {error}")).await;
            false
        }
    }
}
