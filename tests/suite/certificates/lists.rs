//! Revocation lists of several authorities in one file, each of which counts for itself.

use std::time::{Duration, SystemTime};

use rustls::HandshakeKind;
use weir_tests::tls::{authority, certificate, client_config};
use xtask::certs::{Authority, Certificate};

use super::trust::{IDENTITY, gateway, hour, resumes, returning};
use super::{NAME, metric, put, setup, until_degraded, until_ready, valid, visit};

fn past() -> SystemTime {
    SystemTime::now() - Duration::from_secs(60)
}

/// Another authority beside the one of this run, and both in one bundle.
fn authorities() -> (Authority, String) {
    let other = Authority::new("The other one").expect("a key");
    let both = format!("{}{}", authority().pem(), other.pem());
    (other, both)
}

fn of(authority: &Authority) -> Certificate {
    authority.sign("x", &[IDENTITY]).expect("a name")
}

const CRL: &str = ", client_crl: crl.pem";

#[tokio::test]
async fn a_late_list_leaves_its_last_good_one_in_force_and_does_not_hold_up_the_others_of_its_file() {
    let (other, both) = authorities();
    let list = |authority: &Authority, revoked: &[&Certificate], next| {
        authority.revoke(revoked, next).expect("a list")
    };
    let (good, bad, theirs, revoked) = (of(authority()), of(authority()), of(&other), of(&other));
    let lists = list(authority(), &[], hour()) + &list(&other, &[&revoked], hour());
    let gateway = gateway(setup(&certificate(&[NAME])).file("ca.pem", both).file("crl.pem", lists), CRL);
    visit(&gateway, &client_config(Some(&bad), &[])).await.expect("nobody has revoked it yet");
    // The other authority is late; ours is not, and has something to say.
    let lists = list(&other, &[], past()) + &list(authority(), &[&bad], hour());
    put(gateway.folder(), "crl.pem", lists);
    let told = until_degraded(&gateway, "was to be replaced at").await;
    assert!(told.contains("of CN=The other one"), "it says whose list it is: {told}");
    visit(&gateway, &client_config(Some(&bad), &[])).await.expect_err("its authority has revoked it");
    visit(&gateway, &client_config(Some(&good), &[])).await.expect("it is trusted");
    visit(&gateway, &client_config(Some(&theirs), &[])).await.expect("by the last good list");
    visit(&gateway, &client_config(Some(&revoked), &[])).await.expect_err("by the last good list");
    for result in ["taken", "refused"] {
        let series = format!("weir_tls_rotations_total{{listener=\"web\",result=\"{result}\"}}");
        assert_eq!(metric(&gateway, &series).await, 1, "{result}");
    }
    put(gateway.folder(), "crl.pem", list(&other, &[], hour()) + &list(authority(), &[&bad], hour()));
    until_ready(&gateway).await;
    let file = gateway.folder().join("crl.pem").display().to_string();
    let series = format!("weir_tls_revocation_next_update_seconds{{listener=\"web\",file=\"{file}\"}}");
    let next = metric(&gateway, &series).await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is past 1970").as_secs();
    assert!((0..=3600).contains(&(next - i64::try_from(now).expect("it fits"))), "{next}, and now {now}");
    visit(&gateway, &client_config(Some(&revoked), &[])).await.expect("they think better of it");
}

#[tokio::test]
async fn sessions_are_resumed_while_the_list_of_another_authority_is_out_of_date() {
    let (other, both) = authorities();
    let lists =
        authority().revoke(&[], hour()).expect("a list") + &other.revoke(&[], past()).expect("a list");
    let gateway = gateway(setup(&certificate(&[NAME])).file("ca.pem", both).file("crl.pem", lists), CRL);
    until_degraded(&gateway, "was to be replaced at").await;
    let ours = returning(&gateway, &of(authority())).await;
    resumes(&gateway, &ours).await;
    visit(&gateway, &client_config(Some(&of(&other)), &[])).await.expect_err("it fails closed");
    resumes(&gateway, &ours).await;
}

#[tokio::test]
async fn of_several_lists_of_one_authority_the_newest_counts() {
    let bad = of(authority());
    let (old, new) = (authority().revoke(&[], past()), authority().revoke(&[&bad], hour()));
    let lists = old.expect("a list") + &new.expect("a list");
    let gateway = gateway(setup(&certificate(&[NAME])).file("crl.pem", lists), CRL);
    until_ready(&gateway).await;
    visit(&gateway, &client_config(Some(&of(authority())), &[])).await.expect("the newest is in force");
    visit(&gateway, &client_config(Some(&bad), &[])).await.expect_err("the newest is in force");
}

#[tokio::test]
async fn a_certificate_that_has_expired_and_proves_nothing_does_not_end_a_session() {
    let gateway = gateway(setup(&certificate(&[NAME])), "");
    let mut own = certificate(&[IDENTITY]);
    own.cert += &valid(-100, -10).cert;
    let client = returning(&gateway, &own).await;
    assert_eq!(visit(&gateway, &client).await.expect("a visit").0, HandshakeKind::Resumed);
}
