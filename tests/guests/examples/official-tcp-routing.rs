//! The official SDK's `envoy_tcp_routing`: the cluster of a connection by the address that it comes from.

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, RootContext, StreamContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Trace);
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> { Box::new(TcpRoutingRoot { cluster: String::new() }) });
}}

struct TcpRoutingRoot {
    cluster: String,
}

impl Context for TcpRoutingRoot {}

impl RootContext for TcpRoutingRoot {
    fn on_configure(&mut self, _: usize) -> bool {
        self.cluster =
            self.get_plugin_configuration().and_then(|c| String::from_utf8(c).ok()).unwrap_or_default();
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::StreamContext)
    }

    fn create_stream_context(&self, _: u32) -> Option<Box<dyn StreamContext>> {
        Some(Box::new(TcpRouting { cluster: self.cluster.clone() }))
    }
}

struct TcpRouting {
    cluster: String,
}

impl Context for TcpRouting {}

impl StreamContext for TcpRouting {
    fn on_new_connection(&mut self) -> Action {
        let source = hostcalls::get_property(vec!["source", "address"]).ok().flatten().unwrap_or_default();
        if source.starts_with(b"127.0.0.1:") {
            // SetEnvoyFilterStateArguments: path = 1, value = 2, span = 3 (downstream connection).
            let path = b"envoy.tcp_proxy.cluster";
            let mut argument = vec![0x0a, path.len() as u8];
            argument.extend_from_slice(path);
            argument.extend_from_slice(&[0x12, self.cluster.len() as u8]);
            argument.extend_from_slice(self.cluster.as_bytes());
            argument.extend_from_slice(&[0x18, 2]);
            let called = hostcalls::call_foreign_function("set_envoy_filter_state", Some(&argument));
            if let Err(status) = called {
                log::error!("not routed: {status:?}");
            }
        }
        Action::Continue
    }
}
