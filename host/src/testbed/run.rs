//! Runs the cases of a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::problem::Place;
use crate::config::value::Spanned;
use crate::plugin::library::Loaded;
use crate::testbed::bed::{Bed, NotStarted, Setting, Workbench};
use crate::testbed::case::{Case, CaseFile, Neighbour, Step};
use crate::testbed::compare::{Difference, compare};
use crate::testbed::seen::Seen;
use crate::testbed::update;

/// What came of a case.
#[derive(Debug)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// What is not as expected.
    pub differences: Vec<Difference>,
    /// For each of its streams: what was seen, and its number in the case.
    seen: Vec<Seen>,
}

impl Outcome {
    /// Whether all is as expected.
    pub fn is_good(&self) -> bool {
        self.differences.is_empty()
    }
}

/// The plugins of a file of cases.
#[derive(Clone)]
pub struct Cast {
    /// The one that is tested.
    pub tested: Loaded,
    /// Those of the filters beside it, by their files.
    pub others: BTreeMap<PathBuf, Loaded>,
}

impl Cast {
    /// What a case is started with, the filters beside the tested one among it.
    pub(super) fn setting(&self, file: &CaseFile, case: &Case) -> Setting {
        let beside = |own: &Option<Vec<Neighbour>>, of_file: &[Neighbour]| {
            let all = own.as_deref().unwrap_or(of_file).iter();
            let loaded = all.filter_map(|neighbour| {
                Some((neighbour.filter.clone(), self.others.get(&neighbour.plugin)?.clone()))
            });
            loaded.collect()
        };
        let (before, behind) = (beside(&case.before, &file.before), beside(&case.behind, &file.behind));
        Setting { before, behind, ..setting(file, case) }
    }
}

/// Runs the cases of a file, those whose names `wanted` picks, each with instances of its own.
///
/// # Errors
/// When a case cannot be run at all.
pub fn run_file(
    workbench: &Arc<Workbench>,
    plugins: &Cast,
    file: &CaseFile,
    wanted: impl Fn(&str) -> bool,
) -> anyhow::Result<Vec<Outcome>> {
    let cases = file.cases.iter().filter(|case| wanted(&case.name));
    cases.map(|case| run_case(workbench, plugins, file, case)).collect()
}

impl Outcome {
    /// The text of a file of cases with expectations that fit what was seen. `None` when nothing is to be changed.
    ///
    /// # Errors
    /// Why they cannot be written into it.
    pub fn update(
        outcomes: &[Self],
        file: &CaseFile,
        text: &str,
        path: &Path,
    ) -> anyhow::Result<Option<String>> {
        let seen = |outcome: &Self| (outcome.name.clone(), outcome.seen.clone());
        let seen: Vec<(String, Vec<Seen>)> = outcomes.iter().map(seen).collect();
        let differences: Vec<&Difference> =
            outcomes.iter().flat_map(|outcome| &outcome.differences).collect();
        update::rewrite(text, file, &differences, &seen, path)
    }
}

fn run_case(
    workbench: &Arc<Workbench>,
    plugins: &Cast,
    file: &CaseFile,
    case: &Spanned<Case>,
) -> anyhow::Result<Outcome> {
    let place = &case.place;
    let mut outcome = Outcome {
        name: case.name.value.clone(),
        place: place.clone(),
        differences: Vec::new(),
        seen: Vec::new(),
    };
    let started = Bed::start(workbench, &plugins.tested, plugins.setting(file, case));
    let mut bed = match (started, &case.refused) {
        (Ok(bed), None) => bed,
        (Ok(_), Some(refused)) => {
            outcome.differences.push(Difference {
                place: refused.place.clone(),
                what: None,
                wanted: refused.describe(),
                got: "(it starts)".to_owned(),
                instead: None,
            });
            return Ok(outcome);
        }
        (Err(NotStarted::Plugin { error, log }), Some(refused)) => {
            let said = if log.is_empty() { error.to_string() } else { log.join("\n") };
            if !refused.fits(Some(said.as_bytes())) {
                outcome.differences.push(Difference {
                    place: refused.place.clone(),
                    what: None,
                    wanted: refused.describe(),
                    got: said.clone(),
                    instead: Some(said.into()),
                });
            }
            return Ok(outcome);
        }
        (Err(NotStarted::Plugin { error, .. }), None) => {
            outcome
                .differences
                .push(Difference::trouble(place, format!("the plugin does not start: {error}")));
            return Ok(outcome);
        }
        (Err(NotStarted::Other(error)), _) => return Err(error),
    };
    for step in case.streams() {
        run_step(&mut bed, file, case, &step, &mut outcome)?;
    }
    Ok(outcome)
}

/// What a case is started with, without filters beside the tested one.
pub fn setting(file: &CaseFile, case: &Case) -> Setting {
    let mut filter = case.filter.clone().unwrap_or_else(|| file.filter.clone());
    if let Some(config) = &case.config {
        filter.0.config = Some(config.clone());
    }
    let mut shared_data = file.shared_data.clone();
    shared_data.extend(case.shared_data.clone());
    Setting {
        watched: None,
        before: Vec::new(),
        behind: Vec::new(),
        filter,
        time: case.time.unwrap_or(file.time),
        calls: case.calls.iter().chain(&file.calls).cloned().collect(),
        shared_data,
    }
}

fn run_step(
    bed: &mut Bed,
    file: &CaseFile,
    case: &Spanned<Case>,
    step: &Step,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let paths = step.expect.as_ref().map(|expect| expect.properties.keys().map(String::as_str).collect());
    let paths: Vec<&str> = paths.unwrap_or_default();
    let seen = run_stream(bed, file, case, step, &paths)?;
    outcome.differences.extend(compare(step.expect.as_ref(), &seen, bed, &case.place));
    outcome.seen.push(seen);
    Ok(())
}

/// Runs one stream of a case. `properties`: the paths of those that are to be noted down at its end.
///
/// # Errors
/// When it cannot be run.
pub fn run_stream(
    bed: &mut Bed,
    file: &CaseFile,
    case: &Case,
    step: &Step,
    properties: &[&str],
) -> anyhow::Result<Seen> {
    if let Some(after) = step.after {
        bed.pass(after);
    }
    let connection = step.connection.as_ref().or(case.connection.as_ref()).or(file.connection.as_ref());
    let route = step.route.as_ref().or(case.route.as_ref()).or(file.route.as_ref());
    match (&step.request, &step.data) {
        (Some(request), _) => bed.exchange(connection, route, request, step.response.as_ref(), properties),
        (None, Some(data)) => Ok(bed.connection(connection, data, properties)),
        (None, None) => Ok(bed.take_seen()),
    }
}
