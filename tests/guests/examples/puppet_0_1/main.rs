//! The puppet, as a module of Proxy-Wasm 0.1.0: the header callbacks have two arguments, and the stream functions are
//! those of that version.

/// Functions that a host for 0.1.0 need not have are left out.
macro_rules! where_supported {
    (proxy_continue_stream $call:block) => {};
    (proxy_close_stream $call:block) => {};
    (proxy_get_log_level $call:block) => {};
    ($name:ident $call:block) => {
        $call
    };
}

#[path = "../puppet/exports.rs"]
mod exports;
#[path = "../puppet/host.rs"]
mod host;
#[path = "../puppet/script.rs"]
mod script;

/// Tells the host which contract this module speaks.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_abi_version_0_1_0() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(context: u32, count: u32) -> u32 {
    exports::run(context, "request_headers", None, &[count], 0)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(context: u32, count: u32) -> u32 {
    exports::run(context, "response_headers", None, &[count], 0)
}
