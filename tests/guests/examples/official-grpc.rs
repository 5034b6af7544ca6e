//! gRPC with the official SDK, to the cluster `other`: a request for `/unary` waits for the answer to a call, one for
//! `/stream` for the end of a stream of three messages, one for `/cancel` for neither, and one for `/nobody` asks a
//! cluster that there is not. What was heard is told to the upstream in `x-heard`, event by event.

use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, Bytes, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Trace);
    proxy_wasm::set_http_context(|_, _| -> Box<dyn HttpContext> { Box::new(Asking { heard: Vec::new() }) });
}}

const SERVICE: &str = "test.Greeter";
const TIMEOUT: Duration = Duration::from_secs(5);

struct Asking {
    heard: Vec<String>,
}

impl Asking {
    fn resume(&self) {
        self.set_http_request_header("x-heard", Some(&self.heard.join("; ")));
        self.resume_http_request();
    }
}

fn text(bytes: Option<Bytes>) -> String {
    bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

impl HttpContext for Asking {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let metadata: Vec<(&str, &[u8])> = vec![("x-asks", b"official")];
        let path = self.get_http_request_header(":path").unwrap_or_default();
        let asked = match path.as_str() {
            "/unary" => self.dispatch_grpc_call("other", SERVICE, "Unary", metadata, Some(b"ann"), TIMEOUT),
            "/nobody" => self.dispatch_grpc_call("nobody", SERVICE, "Unary", metadata, Some(b"ann"), TIMEOUT),
            "/stream" => self.open_grpc_stream("other", SERVICE, "Stream", metadata).inspect(|&stream| {
                self.send_grpc_stream_message(stream, Some(b"ann"), false);
                self.send_grpc_stream_message(stream, Some(b"bob"), false);
                self.send_grpc_stream_message(stream, Some(b"cat"), true);
            }),
            "/cancel" => {
                let stream = self.open_grpc_stream("other", SERVICE, "Stream", metadata);
                if let Ok(stream) = stream {
                    self.cancel_grpc_stream(stream);
                }
                self.set_http_request_header("x-heard", Some("nothing"));
                return Action::Continue;
            }
            _ => return Action::Continue,
        };
        match asked {
            Ok(_) => Action::Pause,
            Err(status) => {
                self.set_http_request_header("x-heard", Some(&format!("refused: {status:?}")));
                Action::Continue
            }
        }
    }
}

impl Context for Asking {
    fn on_grpc_call_response(&mut self, _: u32, status: u32, size: usize) {
        // Only what succeeds has a message.
        let message = (status == 0).then(|| text(self.get_grpc_call_response_body(0, size)));
        self.heard.push(format!("call {status} {}", message.as_deref().unwrap_or("without a message")));
        self.resume();
    }

    fn on_grpc_stream_initial_metadata(&mut self, _: u32, _: u32) {
        let kind = text(self.get_grpc_stream_initial_metadata_value("content-type"));
        self.heard.push(format!("begins {kind}"));
    }

    fn on_grpc_stream_message(&mut self, _: u32, size: usize) {
        let message = text(self.get_grpc_stream_message(0, size));
        self.heard.push(format!("message {message}"));
    }

    fn on_grpc_stream_trailing_metadata(&mut self, _: u32, _: u32) {
        let end = text(self.get_grpc_stream_trailing_metadata_value("x-end"));
        self.heard.push(format!("trailing {end}"));
    }

    fn on_grpc_stream_close(&mut self, _: u32, status: u32) {
        self.heard.push(format!("closed {status}"));
        self.resume();
    }
}
