//! Queues that instances share, awaited.

use weir_tests::Setup;
use weir_tests::http::{Client, mirror};

/// A gateway with the filter `queues`.
async fn gateway(workers: u32, settings: &str) -> weir_tests::Gateway {
    let up = mirror().await;
    let config = format!(
        "runtime: {{ workers: {workers} }}\n\
         listeners: [ {{ name: web, address: \"127.0.0.1:0\", http: {{ filters: [ {{ plugin: queues{settings} }} ], \
           routes: [ {{ cluster: up }} ] }} }} ]\n\
         clusters: [ {{ name: up, endpoints: [\"{}\"] }} ]",
        up.address
    );
    Setup::new().plugin("queues").config(config).start()
}

#[tokio::test]
async fn what_one_stream_hands_over_others_that_wait_for_it_get_once() {
    let gateway = gateway(1, "").await;
    let mut giver = Client::h1(gateway.address("web")).await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let mut client = Client::h1(gateway.address("web")).await;
        waiting.spawn(async move { client.get("/await").await.text() });
    }
    for number in 0..4 {
        assert_eq!(giver.get(&format!("/hand/{number}")).await.text(), "handed");
    }
    let mut taken = waiting.join_all().await;
    taken.sort();
    assert_eq!(taken, ["0", "1", "2", "3"]);
    assert_eq!(giver.get("/take").await.text(), "nothing");
}

#[tokio::test]
async fn a_future_that_is_no_streams_takes_what_instances_of_all_workers_put_into_a_queue_each_once() {
    let gateway = gateway(2, "").await;
    let entries: Vec<String> = (0..12).map(|number| format!("entry-{number}-of-12")).collect();
    for entry in &entries {
        // Each connection goes to one of the workers.
        let mut client = Client::h1(gateway.address("web")).await;
        assert_eq!(client.get(&format!("/note/{entry}")).await.text(), "to be noted");
    }
    entries.iter().for_each(|entry| drop(gateway.wait_for_log(&format!("noted: {entry}"))));
    let log = gateway.log();
    for entry in &entries {
        assert_eq!(log.matches(&format!("noted: {entry} ")).count(), 1, "{entry}");
    }
}

#[tokio::test]
async fn who_gives_up_waiting_takes_nothing() {
    let gateway = gateway(1, "").await;
    let mut client = Client::h1(gateway.address("web")).await;
    assert_eq!(client.get("/await-a-little").await.text(), "nothing came");
    assert_eq!(client.get("/hand/kept").await.text(), "handed");
    assert_eq!(client.get("/take").await.text(), "kept");
}

#[tokio::test]
async fn a_queue_of_others_is_found_only_where_that_is_granted() {
    let gateway = gateway(1, ", vm_id: own").await;
    let mut client = Client::h1(gateway.address("web")).await;
    assert_eq!(client.get("/find/own/handed").await.text(), "found");
    assert_eq!(client.get("/take").await.text(), "from afar");
    assert_eq!(client.get("/find/own/no-such").await.text(), "there is none");
    let refused = client.get("/find/others/handed").await.text();
    assert!(
        refused.contains("finding queue `handed` of `others`") || refused == "there is none",
        "{refused}"
    );
}
