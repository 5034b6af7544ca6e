//! Does what its configuration tells it, callback by callback, on the raw ABI: no SDK stands in between.
//!
//! The configuration is a script, see `script.rs`. Each callback and the status of each call become a line of the
//! host's log, so that a test can compare what happened, in this host or in another one.

/// Functions that a host for 0.2.1 need not have are left out.
macro_rules! where_supported {
    (proxy_continue_request $call:block) => {};
    (proxy_continue_response $call:block) => {};
    (proxy_clear_route_cache $call:block) => {};
    (proxy_get_configuration $call:block) => {};
    ($name:ident $call:block) => {
        $call
    };
}

mod exports;
mod host;
mod script;

/// Tells the host which contract this module speaks.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(context: u32, count: u32, end: u32) -> u32 {
    exports::run(context, "request_headers", Some(end), &[count, end], 0)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(context: u32, count: u32, end: u32) -> u32 {
    exports::run(context, "response_headers", Some(end), &[count, end], 0)
}
