//! What filters of our SDK cost, beside what they do.

use weir_tests::http::{Client, empty, mirror};

use crate::plugins::filtered;

#[tokio::test]
async fn a_header_is_read_with_one_allocation_and_one_that_is_not_there_with_none() {
    let mirror = mirror().await;
    let gateway = filtered(&["counting"], "{ plugin: counting }", &mirror);
    let mut client = Client::h1(gateway.address("web")).await;
    let request = client.request("GET", "/path").header("x-one", "1").body(empty());
    let answer = client.call(request.expect("a request")).await.expect("an answer");
    let expected = "x-allocations: one 1, none 0, path 1, all 1, set 0\n";
    assert!(answer.text().contains(expected), "{}", answer.text());
}
