//! Certificates, keys, authorities and revocation lists: their files are looked at, and what is new is taken up. Each
//! pair and each bundle that is of no use leaves the last good one in force, and is complained about.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::net::tls::files::{Print, Watched};
use crate::net::tls::lists::Revoked;
use crate::net::tls::renewal::Trouble;
use crate::net::tls::{client, server};
use crate::plugin::directory::SETTLE;
use crate::reload::Control;
use crate::reload::status::lock;
use crate::snapshot::{Owner, Snapshot, Tls};
use crate::telemetry::metrics::Registry;

/// What the control plane remembers of certificates.
#[derive(Debug, Default)]
pub struct Seen {
    /// The files, as they were when they were last looked at.
    files: Watched,
    /// Files that have changed: what they hold, and since when. They may be half of something.
    unsettled: HashMap<Owner, (Vec<Print>, Instant)>,
    /// What was told of what is in force and not valid.
    told: HashSet<String>,
}

impl Seen {
    /// Whether files have held the same for long enough to be taken up.
    fn settles(&mut self, owner: &Owner, prints: Vec<Print>) -> bool {
        match self.unsettled.get(owner) {
            Some((seen, since)) if *seen == prints => since.elapsed() >= SETTLE,
            Some(_) | None => {
                self.unsettled.insert(owner.clone(), (prints, Instant::now()));
                false
            }
        }
    }

    /// Tells once of everything that is in force and not valid.
    fn complain(&mut self, snapshot: &Snapshot) {
        let faults = snapshot.concerns().into_iter().filter(|concern| concern.since.is_none());
        let faults: HashSet<String> =
            faults.map(|fault| format!("{}: {}", fault.owner, fault.reason)).collect();
        faults.difference(&self.told).for_each(|fault| tracing::error!("{fault}"));
        self.told = faults;
    }
}

impl Control {
    /// Takes up the certificates whose files have changed. True when some are still being written.
    pub async fn look_at_certificates(&mut self) -> bool {
        let Some(snapshot) = self.status.snapshot() else { return false };
        self.certificates.complain(&snapshot);
        let changed = changed(&snapshot, &mut self.certificates.files);
        self.certificates.unsettled.retain(|owner, _| changed.iter().any(|(known, _)| known == owner));
        if changed.is_empty() {
            return false;
        }
        // All of them: a file that is many a listener's is written for all.
        let settled = changed
            .into_iter()
            .fold(true, |settled, (owner, prints)| self.certificates.settles(&owner, prints) && settled);
        if !settled {
            return true;
        }
        let serving = lock(&self.status.library).all_serving();
        let config = Arc::clone(&self.config);
        if let Err(problems) = self.apply(&config, &serving).await {
            problems.iter().for_each(|problem| tracing::error!("certificates are not taken up: {problem}"));
        }
        false
    }

    /// The folders of all files of TLS.
    pub fn certificate_folders(&self) -> Vec<PathBuf> {
        let sections = &self.config.sections;
        let listeners = sections.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let clusters = sections.clusters.iter().filter_map(|cluster| cluster.tls.as_ref());
        let files = listeners.flat_map(server::files_of).chain(clusters.flat_map(client::files_of));
        let folders = files.filter_map(|(file, _)| file.parent());
        let mut folders: Vec<PathBuf> = folders.map(Path::to_owned).collect();
        folders.sort();
        folders.dedup();
        folders
    }

    /// Whether everything is well with the certificates that somebody asked to reload.
    ///
    /// # Errors
    /// What is not.
    pub fn certificates_are_good(&self) -> Result<(), String> {
        let concerns = self.status.snapshot().map(|snapshot| snapshot.concerns()).unwrap_or_default();
        let told: Vec<_> = concerns.iter().map(|c| format!("{}: {}", c.owner, c.reason)).collect();
        if told.is_empty() {
            return Ok(());
        }
        Err(format!(
            "the configuration is in force, with what was good of its certificates before:\n{}",
            told.join("\n")
        ))
    }

    /// Tells what has become of certificates from one snapshot to the next.
    pub(super) fn tell_of_certificates(&self, before: Option<&Snapshot>, now: &Snapshot) {
        let registry = &self.services.registry;
        tell_of_ends(registry, now);
        for listener in &now.listeners {
            let Tls::Terminate(tls) = &listener.tls else { continue };
            let owner = Owner::Listener(Arc::clone(&listener.name));
            let same = |known: &&Arc<crate::snapshot::Listener>| known.name == listener.name;
            let known = before.and_then(|before| before.listeners.iter().find(same));
            let known = known.and_then(|known| match &known.tls {
                Tls::Terminate(tls) => Some(tls),
                Tls::None | Tls::Passthrough => None,
            });
            if let Some(known) = known.filter(|known| !Arc::ptr_eq(known, tls)) {
                rotation(registry, &owner, known.is_same(tls), &known.troubles, &tls.troubles);
            }
        }
        for cluster in &now.clusters {
            let Some(tls) = &cluster.tls else { continue };
            let owner = Owner::Cluster(Arc::clone(&cluster.name));
            let known = before.and_then(|before| before.clusters.iter().find(|k| k.name == cluster.name));
            if let Some(known) = known.and_then(|known| known.tls.as_ref()).filter(|k| !Arc::ptr_eq(k, tls)) {
                rotation(registry, &owner, known.is_same(tls), &known.troubles, &tls.troubles);
            }
        }
    }
}

/// Whose files hold something else than what is in force, or are to be looked at again; and what they are known by.
fn changed(snapshot: &Snapshot, files: &mut Watched) -> Vec<(Owner, Vec<Print>)> {
    files.begin();
    let mut changed = Vec::new();
    for (listener, section) in snapshot.listeners.iter().zip(&snapshot.config.sections.listeners) {
        let http = matches!(listener.service, crate::snapshot::Service::Http(_));
        let (Tls::Terminate(tls), Some(config)) = (&listener.tls, &section.tls) else { continue };
        let prints = files.prints(server::files_of(config));
        if !tls.is_current(config, http, &prints) {
            changed.push((Owner::Listener(Arc::clone(&listener.name)), prints));
        }
    }
    for (cluster, section) in snapshot.clusters.iter().zip(&snapshot.config.sections.clusters) {
        let (Some(tls), Some(config)) = (&cluster.tls, &section.tls) else { continue };
        let prints = files.prints(client::files_of(config));
        if !tls.is_current(config, crate::upstream::cluster::offer(section), &prints) {
            changed.push((Owner::Cluster(Arc::clone(&cluster.name)), prints));
        }
    }
    changed
}

/// Counts and logs what files that have changed were good for.
fn rotation(registry: &Registry, owner: &Owner, same: bool, before: &[Trouble], now: &[Trouble]) {
    let (kind, name) = owner.label();
    let count = |result| {
        let help =
            "Certificates, authorities and revocation lists that were taken up or refused, by who uses them.";
        registry.counter("weir_tls_rotations_total", help, &[(kind, name), ("result", result)]).inc();
    };
    if !same {
        count("taken");
        tracing::info!("{owner}: new certificates are in force");
    }
    for trouble in now.iter().filter(|trouble| !before.contains(trouble)) {
        count("refused");
        tracing::error!("{owner}: what served goes on: {}", trouble.reason);
    }
}

/// When something ends to be valid: whose it is, its file, and the time in seconds since 1970.
type End = (Owner, String, i64);

/// Shows when what is in force ends to be valid, and nothing of what is not in force any more.
fn tell_of_ends(registry: &Registry, now: &Snapshot) {
    let (mut certificates, mut lists): (Vec<End>, Vec<End>) = (Vec::new(), Vec::new());
    let mut note = |owner: &Owner, revoked: Option<(&Path, &Revoked)>| {
        let next = revoked.and_then(|(file, revoked)| Some((file, revoked.next_update()?)));
        lists.extend(next.map(|(file, next)| (owner.clone(), file.display().to_string(), next)));
    };
    for listener in &now.listeners {
        let Tls::Terminate(tls) = &listener.tls else { continue };
        let owner = Owner::Listener(Arc::clone(&listener.name));
        for (files, known) in tls.certificates() {
            certificates.push((owner.clone(), files.cert.value.display().to_string(), known.validity.1));
        }
        note(&owner, tls.revoked());
    }
    for cluster in &now.clusters {
        let Some(tls) = &cluster.tls else { continue };
        let owner = Owner::Cluster(Arc::clone(&cluster.name));
        if let (Some(known), Some(file)) = (tls.certificate(), &tls.config.cert) {
            certificates.push((owner.clone(), file.value.display().to_string(), known.validity.1));
        }
        note(&owner, tls.revoked());
    }
    let show = |name, help, ends: &[End]| {
        let numbers = ends.iter().map(|(owner, file, end)| ([owner.label(), ("file", file)], *end));
        registry.show_only(name, help, numbers);
    };
    let help = "When a certificate in force ends to be valid, in seconds since 1970.";
    show("weir_tls_certificate_not_after_seconds", help, &certificates);
    let help = "When the first of a file's revocation lists has to be replaced, in seconds since 1970.";
    show("weir_tls_revocation_next_update_seconds", help, &lists);
}
