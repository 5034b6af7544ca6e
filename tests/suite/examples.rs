//! The configurations in `docs/examples`. That they do what they say is shown by `cargo xtask demo --check`.

use weir::config::Config;

#[test]
fn every_example_is_a_good_configuration() {
    let folder = xtask::cargo::root().join("docs/examples");
    let mut read = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the folder of the examples") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            Config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
            read.extend(path.file_name().map(std::ffi::OsStr::to_os_string));
        }
    }
    read.sort();
    assert_eq!(read, ["gateway.yaml", "sidecar.yaml"]);
}
