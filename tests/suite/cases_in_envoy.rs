//! The cases of the standard filters in a real Envoy, when the variable `ENVOY` says where one is (`cargo xtask parity`
//! does). That they are good in Weir is shown by `plugin_cases`; what is not the same in Envoy is in `filters/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use weir::testbed::{CaseFile, Difference};
use weir_tests::parity::cases::{Outcome, run};

/// Cases that are not run in Envoy, and why: filter, case, reason.
const PASSED_OVER: [(&str, &str, &str); 1] = [(
    "header-rewrite",
    "headers of a response are rewritten with what is known of the upstream",
    "where the upstream is, the test does not choose",
)];

/// The Envoy that is asked for.
fn envoy() -> Option<PathBuf> {
    let envoy = std::env::var_os("ENVOY").map(PathBuf::from);
    if envoy.is_none() {
        eprintln!("skipped: ENVOY is not the path of an Envoy");
    }
    envoy
}

/// The files of cases of a filter.
fn files(filter: &str) -> Vec<CaseFile> {
    let folder = xtask::cargo::root().join("filters").join(filter).join("cases");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths: BTreeSet<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    let load = |path: PathBuf| CaseFile::load(&path).unwrap_or_else(|problems| panic!("{problems}")).0;
    paths.into_iter().map(load).collect()
}

/// The cases that the page of the filters says differ in Envoy: filter, case, and why.
fn explained() -> BTreeSet<(String, String, String)> {
    let page = xtask::cargo::root().join("filters/README.md");
    let page = std::fs::read_to_string(page).expect("the page of the filters");
    let (_, table) =
        page.split_once("\n| filter | case | in Envoy 1.40 |\n|---|---|---|\n").expect("a table of cases");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect());
    cells
        .map(|cells: Vec<String>| {
            let [filter, case, why] = cells.try_into().expect("three columns");
            (filter, case, why)
        })
        .collect()
}

/// Runs the cases of a filter: those that differ must be explained, and those that are passed over listed.
async fn run_all(filter: &str) {
    let Some(envoy) = envoy() else { return };
    let (mut differing, mut passed_over) = (BTreeMap::new(), Vec::new());
    let mut same = 0;
    for file in files(filter) {
        for case in &file.cases {
            let name = case.name.value.clone();
            match run(filter, &file, case, &envoy).await {
                Outcome::Same => same += 1,
                Outcome::Differs(differences) => {
                    let texts: Vec<String> = differences.iter().map(Difference::text).collect();
                    differing.insert(name, texts.join("\n"));
                }
                Outcome::PassedOver(reason) => passed_over.push((name, reason)),
            }
        }
    }
    assert!(same > 0, "some are the same: {differing:#?}");
    let listed = explained();
    let listed = listed.iter().filter(|(of, ..)| of == filter).map(|(_, case, _)| case.as_str());
    let listed: BTreeSet<&str> = listed.collect();
    let found: BTreeSet<&str> = differing.keys().map(String::as_str).collect();
    let shown: String = differing.iter().map(|(case, texts)| format!("{case}\n{texts}\n")).collect();
    assert_eq!(found, listed, "what differs, and what filters/README.md says does:\n{shown}");
    let expected = PASSED_OVER.iter().filter(|(of, ..)| *of == filter);
    let expected: Vec<(String, &str)> = expected.map(|(_, case, why)| ((*case).to_owned(), *why)).collect();
    assert_eq!(passed_over, expected, "what is passed over, and the table of this test");
}

macro_rules! filters {
    ($($test:ident: $filter:literal;)*) => {
        const FILTERS: &[&str] = &[$($filter),*];

        $(#[tokio::test]
        async fn $test() {
            run_all($filter).await;
        })*
    };
}

filters! {
    the_cases_of_api_key_are_as_good_in_envoy_as_is_written_down: "api-key";
    the_cases_of_authz_are_as_good_in_envoy_as_is_written_down: "authz";
    the_cases_of_cors_are_as_good_in_envoy_as_is_written_down: "cors";
    the_cases_of_ext_authz_are_as_good_in_envoy_as_is_written_down: "ext-authz";
    the_cases_of_header_rewrite_are_as_good_in_envoy_as_is_written_down: "header-rewrite";
    the_cases_of_ip_access_are_as_good_in_envoy_as_is_written_down: "ip-access";
    the_cases_of_jwt_are_as_good_in_envoy_as_is_written_down: "jwt";
    the_cases_of_rate_limit_are_as_good_in_envoy_as_is_written_down: "rate-limit";
    the_cases_of_sni_router_are_as_good_in_envoy_as_is_written_down: "sni-router";
    the_cases_of_tcp_access_are_as_good_in_envoy_as_is_written_down: "tcp-access";
}

#[test]
fn every_filter_is_run_in_envoy_and_what_is_written_down_is_of_cases_that_there_are() {
    assert_eq!(xtask::guests::filters().expect("the filters"), FILTERS);
    let passed_over =
        PASSED_OVER.map(|(filter, case, why)| (filter.to_owned(), case.to_owned(), why.to_owned()));
    for (filter, case, why) in explained().into_iter().chain(passed_over) {
        let there = files(&filter).iter().any(|file| file.cases.iter().any(|one| one.name.value == case));
        assert!(there, "{filter} has no case `{case}`");
        assert!(!why.is_empty(), "{filter}: nothing says why `{case}` differs");
    }
}
