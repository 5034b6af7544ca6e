//! The life of VMs, plugins and streams; 0.1.0; faults.

use crate::parity::{Filter, Scenario, get, post};

fn old(name: &'static str, script: &str) -> Scenario {
    Scenario::new(name, script).with(|filter| filter.guest = "puppet_0_1")
}

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("contexts", r#"request_headers: proxy_set_effective_context 4242; proxy_set_effective_context 0; proxy_set_effective_context $root; proxy_get_header_map_value 0 ":path"; proxy_set_effective_context $this; proxy_get_header_map_value 0 ":path""#)
            .send(get("/x")),
        Scenario::new("done-out-of-turn", "request_headers: proxy_done\ndone: proxy_done; return 1\nlog: proxy_done").send(get("/x")),
        Scenario::new("done-held-back", "done: return 0\nlog: proxy_done").send(get("/x")),
        Scenario::new("two-plugins-in-one-vm", "request_headers: proxy_set_shared_data k \"one\" 0; proxy_get_property plugin_root_id")
            .with(|filter| filter.vm_id = "same")
            .and(Filter { vm_id: "same", ..Filter::new("two", "request_headers: proxy_get_shared_data k; proxy_get_property plugin_root_id") })
            .send(get("/x")),
        Scenario::new("vm-configuration", "configure: proxy_get_buffer_bytes 6 0 100; proxy_get_buffer_bytes 7 0 9\nrequest_headers: proxy_get_buffer_bytes 6 0 9; proxy_get_buffer_bytes 7 0 9")
            .with(|filter| filter.vm_script = "vm_start: proxy_get_buffer_bytes 6 0 8; proxy_get_buffer_bytes 7 0 9; proxy_get_property plugin_name; proxy_define_metric 0 at_start; proxy_set_shared_data k \"at start\" 0\n".to_owned())
            .send(get("/x")),
        Scenario::new("environment", "request_headers: env NAME; env NONE")
            .with(|filter| filter.environment = vec![("NAME", "a value")])
            .send(get("/x")),
        old("v0-1-headers", r#"request_headers: proxy_get_header_map_value 0 x-none; proxy_get_header_map_value 0 ":path"; proxy_add_header_map_value 0 x-a "1"
               response_headers: proxy_get_header_map_value 2 ":status"; proxy_get_header_map_value 2 x-none
               request_body: proxy_get_buffer_bytes 0 0 100"#)
            .send(post("/x", &["body"])),
        old("v0-1-configuration", "configure: proxy_get_configuration").with(|filter| filter.vm_script = "vm_start: proxy_get_configuration\n".to_owned()).send(get("/x")),
        old("v0-1-pause", "configure: proxy_set_tick_period_milliseconds 100\nrequest_headers: return 1\ntick streaming: proxy_set_effective_context $stream; proxy_continue_request; proxy_set_effective_context 1; proxy_set_tick_period_milliseconds 0")
            .send(get("/x")),
        old("v0-1-clear-route-cache", "request_headers: proxy_replace_header_map_value 0 \":path\" \"/rerouted\"; proxy_clear_route_cache").send(get("/x")),
        Scenario::new("trap-closed", "request_headers: trap").send(get("/x")).until("request_headers").traps(),
        Scenario::new("trap-open", "request_headers: trap").with(|filter| filter.fail_open = true).send(get("/x")).until("request_headers").traps(),
        Scenario::new("time-and-level", "request_headers: proxy_get_current_time_nanoseconds; proxy_get_log_level; proxy_log 9 \"x\"; proxy_log 2 \"a line\"; proxy_get_current_time_nanoseconds @0x7fff0000; proxy_set_tick_period_milliseconds 0").send(get("/x")),
    ]
}
