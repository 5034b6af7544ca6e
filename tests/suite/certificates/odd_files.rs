//! Files of TLS that are no files, or far too large: nothing waits for them, and they take no memory.

use std::fs::File;
use std::path::Path;

use weir_tests::Setup;
use weir_tests::tls::{authority, certificate};

use super::{NAME, der, listening, put, setup, shown, until_degraded, until_ready};

/// Puts a pipe that nobody writes to into a file's place.
fn pipe(folder: &Path, name: &str) {
    let beside = folder.join(format!("{name}.new"));
    rustix::fs::mkfifoat(rustix::fs::CWD, &beside, rustix::fs::Mode::RWXU).expect("a pipe");
    std::fs::rename(beside, folder.join(name)).expect("a rename within a folder");
}

/// Puts a file of zeros into its place, which takes no room.
fn huge(folder: &Path, name: &str, mebibytes: u64) {
    let beside = folder.join(format!("{name}.new"));
    File::create(&beside).and_then(|file| file.set_len(mebibytes << 20)).expect("a sparse file");
    std::fs::rename(beside, folder.join(name)).expect("a rename within a folder");
}

#[tokio::test]
async fn what_is_no_file_or_far_too_large_leaves_the_last_good_one_and_stops_nothing() {
    let own = certificate(&[NAME]);
    let list = authority().revoke(&[], super::trust::hour()).expect("a list");
    let asking = ", client_ca: ca.pem, client_crl: crl.pem, client_certificate: optional";
    let gateway = setup(&own).file("crl.pem", &list).config(listening(asking)).start();
    let folder = gateway.folder();
    let before = gateway.resident();
    for (file, good) in [
        ("a.pem", own.cert.as_str()),
        ("a.key", own.key.as_str()),
        ("ca.pem", authority().pem()),
        ("crl.pem", list.as_str()),
    ] {
        pipe(folder, file);
        until_degraded(&gateway, &format!("{file} is no regular file")).await;
        assert_eq!(shown(&gateway).await, der(&own), "{file}");
        huge(folder, file, 512);
        until_degraded(&gateway, &format!("{file} is larger than")).await;
        assert_eq!(shown(&gateway).await, der(&own), "{file}");
        put(folder, file, good);
        until_ready(&gateway).await;
    }
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 128 << 20, "it has grown by {grown} bytes");
}

#[tokio::test]
async fn a_check_names_files_that_are_none_and_does_not_wait_for_them() {
    let setup: Setup = setup(&certificate(&[NAME])).config(listening(""));
    pipe(setup.folder(), "a.key");
    huge(setup.folder(), "a.pem", 2);
    let (good, report) = crate::check::check(&setup.write_config());
    assert!(!good, "{report}");
    assert!(report.contains("a.key is no regular file"), "{report}");
    assert!(report.contains("a.pem is larger than 1 MiB"), "{report}");
}
