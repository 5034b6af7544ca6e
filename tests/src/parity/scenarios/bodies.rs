//! Bodies: looked at, held, changed, too large.

use crate::parity::upstreams::Answer;
use crate::parity::{Filter, Scenario, get, post};

/// A piece of a body that is large, but not larger than one read.
fn large() -> String {
    // Small enough to be read at once.
    "x".repeat(5000)
}

pub fn scenarios() -> Vec<Scenario> {
    let big: Vec<String> = (0..4).map(|_| large()).collect();
    let big: Vec<&str> = big.iter().map(String::as_str).collect();
    let mut overflow = Scenario::new("body-over-the-limit", "request_body: return 1").send(post("/", &big));
    overflow.buffer = 16 * 1024;
    let mut response_overflow = Scenario::new("response-body-over-the-limit", "response_body: return 1")
        .send(get("/"))
        .answer(Answer::body(&big));
    response_overflow.buffer = 16 * 1024;
    vec![
        Scenario::new(
            "body-in-pieces",
            r#"request_body: proxy_get_buffer_bytes 0 0 100; proxy_get_buffer_status 0
               response_body: proxy_get_buffer_bytes 1 0 100; proxy_get_buffer_status 1"#,
        )
        .send(post("/", &["one", "two"]))
        .answer(Answer::body(&["three", "four"])),
        Scenario::new(
            "body-held-until-whole",
            r#"request_body: proxy_get_buffer_bytes 0 0 100; return 1
               request_body end: proxy_get_buffer_bytes 0 0 100; proxy_set_buffer_bytes 0 0 100 "all of it"
               response_body: proxy_get_buffer_bytes 1 0 100; return 1
               response_body end: proxy_get_buffer_bytes 1 0 100; proxy_set_buffer_bytes 1 0 100 "all of the answer""#,
        )
        .send(post("/", &["one", "two", "three"]))
        .answer(Answer::body(&["four", "five"])),
        Scenario::new(
            "body-with-a-length-replaced",
            r#"request_headers: proxy_remove_header_map_value 0 content-length
               request_body: proxy_set_buffer_bytes 0 0 100 "longer than it was"
               response_headers: proxy_remove_header_map_value 2 content-length
               response_body: proxy_set_buffer_bytes 1 0 100 "longer than it was""#,
        )
        .send(post("/", &["one"]).header("content-length", "3"))
        .answer(Answer::body(&["four"]).header("content-length", "4")),
        Scenario::new(
            "body-ranges",
            r#"request_body 1: proxy_get_buffer_bytes 0 0 4; proxy_get_buffer_bytes 0 2 100; proxy_get_buffer_bytes 0 10 1; proxy_get_buffer_bytes 0 11 5; proxy_get_buffer_bytes 0 0 0; proxy_get_buffer_bytes 0 5 0xffffffff; proxy_get_buffer_bytes 99 0 1; proxy_get_buffer_bytes 1 0 1; proxy_get_buffer_bytes 2 0 1; proxy_get_buffer_bytes 4 0 1; proxy_get_buffer_bytes 7 0 9; proxy_get_buffer_bytes 6 0 9; proxy_get_buffer_bytes 0 0 4 @0x7fff0000:0x7fff0000; proxy_get_buffer_bytes 8 0 1; proxy_get_buffer_bytes 5 0 1"#,
        )
        .send(post("/", &["0123456789"])),
        Scenario::new("body-prepended", r#"request_body 1: proxy_set_buffer_bytes 0 0 0 "head ""#).send(post("/", &["body", "more"])),
        Scenario::new("body-appended", r#"request_body 1: proxy_set_buffer_bytes 0 4 0 " tail"; proxy_set_buffer_bytes 0 99 9 "!""#)
            .send(post("/", &["body", "more"])),
        Scenario::new("body-inner-replaced", r#"request_body 1: proxy_set_buffer_bytes 0 1 2 "--"; proxy_get_buffer_bytes 0 0 100"#)
            .send(post("/", &["body"])),
        Scenario::new("body-start-replaced", r#"request_body 1: proxy_set_buffer_bytes 0 0 2 "--"; proxy_get_buffer_bytes 0 0 100"#)
            .send(post("/", &["body"])),
        Scenario::new(
            "body-emptied",
            r#"request_body: proxy_set_buffer_bytes 0 0 100 ""
               response_body: proxy_set_buffer_bytes 1 0 100 """#,
        )
        .send(post("/", &["body"])),
        Scenario::new(
            "body-set-out-of-phase",
            r#"request_headers: proxy_set_buffer_bytes 0 0 0 "x"; proxy_set_buffer_bytes 1 0 0 "x"; proxy_set_buffer_bytes 99 0 0 "x"; proxy_set_buffer_bytes 7 0 0 "x"
               request_body: proxy_set_buffer_bytes 1 0 0 "x"; proxy_set_buffer_bytes 0 0 0 @0x7fff0000:9
               response_headers: proxy_set_buffer_bytes 0 0 0 "x"; proxy_get_buffer_bytes 0 0 10; proxy_set_buffer_bytes 1 0 0 "x""#,
        )
        .send(post("/", &["body"])),
        overflow,
        response_overflow,
        Scenario::new(
            "body-by-two-filters",
            r#"request_body: return 1
               request_body end: proxy_get_buffer_bytes 0 0 100; proxy_set_buffer_bytes 0 0 100 "from one"
               response_body end: proxy_set_buffer_bytes 1 100 0 " one""#,
        )
        .and(Filter::new(
            "two",
            r#"request_body: proxy_get_buffer_bytes 0 0 100; proxy_set_buffer_bytes 0 100 0 " and two"
               response_body: return 1
               response_body end: proxy_set_buffer_bytes 1 100 0 " two""#,
        ))
        .send(post("/", &["a", "b"])),
        Scenario::new("body-watermark", "request_body more: proxy_get_buffer_bytes 0 0 100; return 2\nrequest_body end: proxy_get_buffer_bytes 0 0 100")
            .send(post("/", &["one", "two"])),
        Scenario::new("body-not-buffered", "request_body more: proxy_get_buffer_bytes 0 0 100; return 3\nrequest_body end: proxy_get_buffer_bytes 0 0 100")
            .send(post("/", &["one", "two"])),
        Scenario::new("response-body-not-buffered", "response_body 1: return 3").send(get("/")).answer(Answer::body(&["one", "two"])),
    ]
}
