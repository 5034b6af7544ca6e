//! What each standard filter must have.

use weir::config::Config;

#[test]
fn every_filter_has_an_example_that_is_a_good_configuration_a_page_and_a_row_in_the_table() {
    let folder = xtask::cargo::root().join("filters");
    let table = std::fs::read_to_string(folder.join("README.md")).expect("the table of filters");
    let names = xtask::guests::filters().expect("the filters");
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        let example = folder.join(&name).join("example.yaml");
        Config::load(&example).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        let page = std::fs::read_to_string(folder.join(&name).join("README.md")).expect("its page");
        for title in [&format!("# {name}\n"), "\n## Configuration\n", "\n## Limits\n"] {
            assert!(page.contains(title), "{name}: {title:?} is missing");
        }
        assert!(table.contains(&format!("| [{name}]({name}) |")), "{name} is not in filters/README.md");
    }
}
