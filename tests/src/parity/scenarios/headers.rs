//! Header maps: reading and editing them, in and out of their phases; trailers.

use crate::parity::upstreams::Answer;
use crate::parity::{Scenario, get, post};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "headers-read",
            r#"request_headers: proxy_get_header_map_value 0 ":path"; proxy_get_header_map_value 0 x-none; proxy_get_header_map_value 0 X-A; proxy_get_header_map_value 0 ":method"; proxy_get_header_map_value 0 ":scheme"; proxy_get_header_map_value 0 x-empty; proxy_get_header_map_value 99 x; proxy_get_header_map_value 0 ""
               response_headers: proxy_get_header_map_value 2 ":status"; proxy_get_header_map_value 2 x-b"#,
        )
        .send(get("/x?y=1").header("x-a", "1").header("x-a", "2").header("x-empty", ""))
        .answer(Answer::default().header("x-b", "3").header("x-b", "4")),
        Scenario::new(
            "headers-edit",
            r#"request_headers: proxy_add_header_map_value 0 x-a "3"; proxy_replace_header_map_value 0 x-b "one"; proxy_remove_header_map_value 0 x-c; proxy_remove_header_map_value 0 x-none; proxy_replace_header_map_value 0 x-new "n"; proxy_add_header_map_value 0 X-Upper "u"; proxy_add_header_map_value 0 x-empty ""; proxy_get_header_map_value 0 x-upper
               response_headers: proxy_add_header_map_value 2 set-cookie "c=3"; proxy_replace_header_map_value 2 x-b "one"; proxy_remove_header_map_value 2 x-c; proxy_replace_header_map_value 2 ":status" "201"; proxy_get_header_map_value 2 ":status""#,
        )
        .send(get("/").header("x-a", "1").header("x-b", "1").header("x-b", "2").header("x-c", "1").header("x-c", "2"))
        .answer(
            Answer::default().header("set-cookie", "a=1").header("set-cookie", "b=2").header("x-b", "1").header("x-b", "2").header("x-c", "1"),
        ),
        Scenario::new(
            "headers-control-characters",
            r#"request_headers: proxy_add_header_map_value 0 x-a "a\r\nb: c"; proxy_add_header_map_value 0 "x y" "1"; proxy_add_header_map_value 0 "" "1"; proxy_replace_header_map_value 0 x-b "a\0b""#,
        )
        .send(get("/")),
        Scenario::new(
            "headers-pseudo",
            r#"request_headers: proxy_replace_header_map_value 0 ":path" "/other?z"; proxy_replace_header_map_value 0 ":method" "PUT"; proxy_replace_header_map_value 0 ":authority" "b.example"; proxy_get_header_map_value 0 ":path"; proxy_get_header_map_value 0 ":authority"; proxy_get_header_map_value 0 host; proxy_remove_header_map_value 0 ":scheme""#,
        )
        .send(get("/")),
        Scenario::new(
            "headers-remove-path",
            r#"request_headers: proxy_remove_header_map_value 0 ":path"; proxy_get_header_map_value 0 ":path""#,
        )
        .send(get("/")),
        Scenario::new(
            "headers-remove-status",
            r#"response_headers: proxy_remove_header_map_value 2 ":status"; proxy_get_header_map_value 2 ":status""#,
        )
        .send(get("/")),
        Scenario::new(
            "headers-choose-the-route",
            r#"request_headers: proxy_get_property "route_name"; proxy_replace_header_map_value 0 ":path" "/rerouted/x""#,
        )
        .send(get("/")),
        Scenario::new(
            "headers-out-of-phase",
            r#"request_headers: proxy_get_header_map_value 2 ":status"; proxy_add_header_map_value 2 x-a "1"; proxy_get_header_map_size 2; proxy_get_header_map_pairs 2; proxy_get_header_map_value 1 x-t; proxy_get_header_map_value 6 ":status"; proxy_get_header_map_value 4 x
               request_body: proxy_get_header_map_value 0 ":path"; proxy_add_header_map_value 0 x-late "1"
               response_headers: proxy_get_header_map_value 0 ":path"; proxy_add_header_map_value 0 x-late "1"
               response_body: proxy_get_header_map_value 2 ":status"; proxy_get_header_map_value 0 ":path"; proxy_add_header_map_value 2 x-late "1""#,
        )
        .send(post("/x", &["body"])),
        Scenario::new(
            "headers-when-logging",
            r#"log: proxy_get_header_map_value 0 ":path"; proxy_get_header_map_value 2 ":status"; proxy_get_header_map_value 2 x-none; proxy_get_header_map_value 1 x; proxy_get_header_map_value 3 x; proxy_add_header_map_value 0 x-a "1"; proxy_replace_header_map_value 2 x-a "1"; proxy_remove_header_map_value 2 x-b
               done: proxy_get_header_map_value 0 ":path"; proxy_get_header_map_value 2 ":status"
               delete: proxy_get_header_map_value 0 ":path""#,
        )
        .send(get("/x")),
        Scenario::new(
            "headers-size-and-pairs",
            r#"response_headers: proxy_set_header_map_pairs 2 [:status=203|x-a=1|x-a=2|x-b=]; proxy_get_header_map_size 2; proxy_get_header_map_pairs 2; proxy_set_header_map_pairs 2 "broken"; proxy_set_header_map_pairs 99 [a=b]"#,
        )
        .send(get("/"))
        .answer(Answer::default().header("x-gone", "1")),
        Scenario::new(
            "headers-request-pairs",
            r#"request_headers: proxy_set_header_map_pairs 0 [:method=GET|:path=/set|:authority=a.example|:scheme=http|x-a=1|x-a=2]"#,
        )
        .send(get("/").header("x-gone", "1")),
        Scenario::new(
            "headers-bad-memory",
            r#"request_headers: proxy_get_header_map_value 0 @0x7fff0000:10; proxy_get_header_map_value 0 @0xfffffff0:0xffff; proxy_get_header_map_value 0 ":path" @0x7fff0000:0x7fff0000; proxy_get_header_map_size 0 @0x7fff0000; proxy_add_header_map_value 0 @0x7fff0000:4 "x"; proxy_add_header_map_value 0 x-a @0x7fff0000:4; proxy_log 2 @0x7fff0000:9; proxy_get_header_map_pairs 0 @0x7fff0000:0x7fff0000; proxy_set_header_map_pairs 0 @0x7fff0000:9"#,
        )
        .send(get("/")),
        Scenario::new(
            "trailers",
            r#"request_trailers: proxy_get_header_map_value 1 x-t; proxy_get_header_map_value 0 ":path"; proxy_add_header_map_value 1 x-added "1"; proxy_replace_header_map_value 1 x-t "2"; proxy_get_header_map_size 1; proxy_get_header_map_pairs 1
               response_trailers: proxy_get_header_map_value 3 x-t; proxy_add_header_map_value 3 x-added "1"; proxy_remove_header_map_value 3 x-gone; proxy_get_header_map_value 2 ":status""#,
        )
        .send(post("/", &["body"]).trailer("x-t", "1"))
        .answer(Answer::default().trailer("x-t", "1").trailer("x-gone", "1")),
        Scenario::new(
            "trailers-made-in-the-last-body-call",
            r#"request_body end: proxy_add_header_map_value 1 x-made "1"; proxy_get_header_map_value 1 x-made
               request_body more: proxy_add_header_map_value 1 x-early "1"
               response_body end: proxy_add_header_map_value 3 x-made "1"
               response_body more: proxy_add_header_map_value 3 x-early "1""#,
        )
        .send(post("/", &["body"]).h2()),
    ]
}
