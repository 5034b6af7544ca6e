//! From the first snapshot to a proxy that serves. What can fail does so before anything is accepted.

use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Context;
use tokio::task::JoinHandle;

use crate::admin::{self, Admin};
use crate::app::succession::{self, Prepared};
use crate::app::{App, Signals};
use crate::config::problem::Problems;
use crate::net::hand_over::Predecessor;
use crate::overload::{Gauges, Overload};
use crate::reload::start::Ready;
use crate::reload::status::{Phase, lock};
use crate::reload::{Control, shed};

/// A proxy that is about to serve.
pub struct Start {
    /// All but what only a proxy has that serves.
    pub app: App,
    /// What it serves with.
    pub begun: Begun,
    /// The load of the process.
    pub overload: Arc<Overload>,
}

/// What it serves with.
pub struct Begun {
    ready: Ready,
    /// Who is to be relieved.
    old: Option<Predecessor>,
    /// The door to the next one.
    door: Prepared,
    /// Accepts for the admin API already.
    accepting: Option<JoinHandle<()>>,
    /// Or is to do so.
    admin: Option<(TcpListener, Admin)>,
}

impl Start {
    /// Puts the first snapshot in force, relieves the old process, and opens the door to the next. `None` when the process
    /// was told to end meanwhile: what it had accepted was answered.
    ///
    /// # Errors
    /// When the old process goes on.
    pub async fn open(self, signals: &mut Signals) -> anyhow::Result<Option<App>> {
        let Self { mut app, begun: Begun { ready, old, door, accepting, admin }, overload } = self;
        app.control.open(ready).await;
        let relieve = async {
            match old {
                Some(old) => old.relieve().await.context("the old process has not ended its service"),
                None => Ok(()),
            }
        };
        let relieved = tokio::select! {
            relieved = relieve => relieved.map(Some),
            () = signals.end() => Ok(None),
        };
        match relieved {
            Ok(Some(())) => {}
            ended => {
                app.end().await;
                return ended.map(|_| None);
            }
        }
        let taken_up = admin.map(|(socket, admin)| serve_admin(socket, admin));
        app.admin = accepting.or(taken_up);
        app.succession = door.open();
        let status = Arc::clone(&app.control.status);
        *lock(&status.phase) = Phase::Serving;
        let orders = app.control.workers.iter().map(|worker| worker.orders.clone()).collect();
        let gauges = Gauges::new(&app.control.services.registry);
        tokio::task::spawn_local(shed::run(status, overload, gauges, orders));
        tracing::info!(workers = app.control.workers.len(), "ready to serve");
        Ok(Some(app))
    }
}

/// Makes the first snapshot, with sockets that are bound, given, or asked for. All that may fail does so here.
pub async fn begin(control: &mut Control, admin: Admin, takeover: bool) -> anyhow::Result<Begun> {
    let mut admin = Some(admin);
    let mut accepting = None;
    if !takeover {
        let socket = bind_admin(control)?;
        accepting = socket.zip(admin.take()).map(|(socket, admin)| serve_admin(socket, admin));
    }
    let first = control.prepare_first().await;
    // As late as can be: until it is relieved the old process takes nothing else up.
    let old = if takeover && first.is_good() { succession::ask(control).await? } else { None };
    let socket = if takeover && first.is_good() { bind_admin(control)? } else { None };
    let unasked = takeover && !first.is_good();
    let mut ready = control.bind_first(first, unasked)?;
    let door = Prepared::make(&control.config, old.is_some()).await?;
    control.find_endpoints(&mut ready).await;
    Ok(Begun { ready, old, door, accepting, admin: socket.zip(admin) })
}

/// Binds the address of the admin API, when there is to be one.
fn bind_admin(control: &mut Control) -> anyhow::Result<Option<TcpListener>> {
    let Some(section) = &control.config.sections.admin else { return Ok(None) };
    let bound = control.sockets.bind_admin(section.address.value);
    Ok(bound
        .map_err(|error| Problems(vec![control.config.problem(&section.address.place, error.to_string())]))?)
}

/// Serves the admin API.
fn serve_admin(socket: TcpListener, admin: Admin) -> JoinHandle<()> {
    if let Ok(address) = socket.local_addr() {
        tracing::info!(%address, "the admin API listens");
    }
    tokio::task::spawn_local(admin::serve(Rc::new(admin), socket))
}
