//! Shared data, queues and metrics.

use crate::parity::{Filter, Scenario, get};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "shared-data",
            r#"request_headers: proxy_get_shared_data none; proxy_set_shared_data key "one" 0; proxy_get_shared_data key; let cas; proxy_set_shared_data key "two" $cas; proxy_set_shared_data key "three" $cas; proxy_set_shared_data new "n" 99; proxy_set_shared_data empty "" 0; proxy_set_shared_data "" "no key" 0; proxy_set_shared_data @0x7fff0000:9 "x" 0; proxy_set_shared_data key @0x7fff0000:9 0; proxy_get_shared_data @0x7fff0000:9"#,
        )
        .send(get("/")),
        Scenario::new("shared-data-of-a-vm-id", "request_headers: proxy_set_shared_data key \"from one\" 0")
            .with(|filter| filter.vm_id = "same")
            .and(Filter { vm_id: "same", ..Filter::new("two", "request_headers: proxy_set_shared_data key2 \"x\" 0") })
            .and(Filter { vm_id: "other", ..Filter::new("three", "request_headers: proxy_get_shared_data key2") })
            .send(get("/")),
        Scenario::new(
            "queue",
            r#"configure: proxy_register_shared_queue q; let q
               request_headers: proxy_resolve_shared_queue "one" q; proxy_dequeue_shared_queue $q; proxy_enqueue_shared_queue $q "item"; return 1
               queue_ready: proxy_dequeue_shared_queue $queue; proxy_dequeue_shared_queue $queue; proxy_set_effective_context $stream; proxy_continue_stream 0"#,
        )
        .send(get("/")),
        Scenario::new(
            "queue-refusals",
            r#"request_headers: proxy_resolve_shared_queue "one" none; proxy_resolve_shared_queue "nobody" q; proxy_enqueue_shared_queue 4242 "x"; proxy_dequeue_shared_queue 4242; proxy_register_shared_queue @0x7fff0000:9; proxy_resolve_shared_queue "one" @0x7fff0000:9"#,
        )
        .send(get("/")),
        Scenario::new(
            "queue-of-another-vm",
            r#"request_headers: proxy_resolve_shared_queue "worker" jobs; proxy_enqueue_shared_queue $last "a job""#,
        )
        .and(Filter {
            vm_id: "worker",
            ..Filter::new("two", "configure: proxy_register_shared_queue jobs\nqueue_ready: proxy_dequeue_shared_queue $queue; log \"done with it\"")
        })
        .send(get("/"))
        .until("done with it"),
        Scenario::new(
            "metrics",
            r#"request_headers: proxy_define_metric 0 c; let c; proxy_increment_metric $c 3; proxy_increment_metric $c 0; proxy_increment_metric $c -1; proxy_record_metric $c 4; proxy_get_metric $c; proxy_define_metric 1 g; let g; proxy_record_metric $g 7; proxy_increment_metric $g -2; proxy_get_metric $g; proxy_define_metric 2 h; let h; proxy_record_metric $h 5; proxy_increment_metric $h 1; proxy_get_metric $h"#,
        )
        .send(get("/")),
        Scenario::new(
            "metrics-refusals",
            r#"request_headers: proxy_define_metric 9 x; proxy_increment_metric 4000 1; proxy_record_metric 4000 1; proxy_get_metric 4000; proxy_define_metric 0 @0x7fff0000:9; proxy_define_metric 0 x @0x7fff0000"#,
        )
        .send(get("/")),
        Scenario::new(
            "metrics-by-the-same-name",
            r#"request_headers: proxy_define_metric 0 same; let a; proxy_define_metric 0 same; let b; proxy_increment_metric $a 2; proxy_increment_metric $b 3; proxy_get_metric $a; proxy_get_metric $b"#,
        )
        .send(get("/")),
    ]
}
