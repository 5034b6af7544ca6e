//! Taking over from the process before this one, and handing over to the next (ADR 0016).

use std::path::PathBuf;

use tokio::sync::mpsc;

use crate::config::Config;
use crate::net::hand_over::{Door, Made, Predecessor, Successor};
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

/// The door to the next processes, which is made before anything else is begun that cannot be undone.
pub struct Prepared(Option<Made>);

impl Prepared {
    /// Makes it: in the place of the process that is taken over from, or else where nobody's is. Where it cannot be made,
    /// and the configuration does not name the place, that is only logged.
    ///
    /// # Errors
    /// When the configuration names a place that is of no use.
    pub async fn make(config: &Config, takes_over: bool) -> anyhow::Result<Self> {
        let place = place(config)?;
        let made = if takes_over { Door::make_beside(&place) } else { Door::make(&place).await };
        let (shown, cure) = (place.display(), "give a path of its own in `runtime.takeover_socket`");
        match made {
            Ok(made) => Ok(Self(Some(made))),
            Err(error) if config.sections.runtime.takeover_socket.is_some() => {
                anyhow::bail!("the takeover socket {shown} cannot be made: {error}; {cure}")
            }
            Err(error) => {
                tracing::warn!(
                    "no process can take over from this one: {shown} cannot be made: {error}; {cure}"
                );
                Ok(Self(None))
            }
        }
    }

    /// Opens it. From here on the process serves, with a door or without.
    pub fn open(self) -> Succession {
        match self.0.map(Made::open).transpose() {
            Ok(open) => Succession(open),
            Err(error) => {
                tracing::error!(
                    "no process can take over from this one: its door cannot be put in its place: {error}"
                );
                Succession::default()
            }
        }
    }
}

impl Succession {
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
