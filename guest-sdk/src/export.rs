//! The exports of a filter's module. The attributes list what the filter implements.

/// Exports what every module has, and the callbacks that are listed. For the attribute [`crate::http_filter`].
#[doc(hidden)]
#[macro_export]
macro_rules! export_http {
    ($filter:ty, $ticks:literal, $grants:literal: $($callback:ident)*) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "exports have fixed names")]
        const _: () = {
            use $crate::internal::{HttpRuntime, Side};

            ::std::thread_local! {
                static RUNTIME: HttpRuntime<$filter> = const { HttpRuntime::new() };
            }

            $crate::export_common!($ticks);
            $crate::export_description!(<$filter as $crate::HttpFilter>::Config, $grants);
            $($crate::export_http_callback!($filter: $callback);)*
        };

        // In a filter's own unit tests nothing is exported, and the filter is used all the same.
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || drop($crate::internal::HttpRuntime::<$filter>::new());
    };
}

/// Exports what every module has, and the callbacks that are listed. For the attribute [`crate::network_filter`].
#[doc(hidden)]
#[macro_export]
macro_rules! export_network {
    ($filter:ty, $ticks:literal, $grants:literal: $($method:ident)*) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "exports have fixed names")]
        const _: () = {
            use $crate::internal::NetworkRuntime;

            ::std::thread_local! {
                static RUNTIME: NetworkRuntime<$filter> = const { NetworkRuntime::new() };
            }

            $crate::export_common!($ticks);
            $crate::export_description!(<$filter as $crate::NetworkFilter>::Config, $grants);
            $($crate::export_network_callback!($method);)*
        };

        // In a filter's own unit tests nothing is exported, and the filter is used all the same.
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || drop($crate::internal::NetworkRuntime::<$filter>::new());
    };
}

/// Version, allocator and life cycle.
#[doc(hidden)]
#[macro_export]
macro_rules! export_common {
    ($ticks:literal) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_abi_version_0_2_1() {}

        // As `bytes` in `raw.rs` does (`weir_abi::OFFERS_ROOM`).
        #[unsafe(no_mangle)]
        extern "C" fn weir_offers_room() {}

        // Without it the linker takes the module for a command, and begins and ends the C library around each callback.
        #[unsafe(no_mangle)]
        extern "C" fn _initialize() {
            $crate::internal::initialize();
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_memory_allocate(len: usize) -> *mut u8 {
            $crate::internal::allocate(len)
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_context_create(context: u32, parent: u32) {
            RUNTIME.with(|runtime| runtime.on_context_create(context, parent));
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_configure(context: u32, len: u32) -> u32 {
            RUNTIME.with(|runtime| runtime.on_configure(context, len, $ticks))
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_delete(context: u32) {
            RUNTIME.with(|runtime| runtime.on_delete(context));
        }
    };
}

/// What the module says of itself: a custom section of JSON, which no code of it refers to.
#[doc(hidden)]
#[macro_export]
macro_rules! export_description {
    ($config:ty, $grants:literal) => {
        const DESCRIPTION: &str = {
            #[allow(unused_imports, reason = "what holds of configurations without a schema")]
            use $crate::internal::Unknown as _;
            const {
                &$crate::internal::Text::describe(
                    ::core::env!("CARGO_PKG_NAME"),
                    ::core::env!("CARGO_PKG_VERSION"),
                    $grants,
                    $crate::internal::Probe::<$config>::SCHEMA,
                )
            }
            .as_str()
        };

        #[used]
        #[unsafe(link_section = "weir.plugin")]
        static SECTION: [u8; DESCRIPTION.len()] = $crate::internal::bytes(DESCRIPTION);
    };
}

/// One callback with its exported name.
#[doc(hidden)]
#[macro_export]
macro_rules! export_http_callback {
    ($filter:ty: request_headers) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_request_headers(context: u32, _: u32, last: u32) -> u32 {
            HttpRuntime::<$filter>::on_headers(&RUNTIME, context, Side::Request, last)
        }
    };
    ($filter:ty: request_body) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_request_body(context: u32, len: u32, last: u32) -> u32 {
            HttpRuntime::<$filter>::on_body(&RUNTIME, context, Side::Request, len, last)
        }
    };
    ($filter:ty: request_trailers) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_request_trailers(context: u32, _: u32) -> u32 {
            HttpRuntime::<$filter>::on_trailers(&RUNTIME, context, Side::Request)
        }
    };
    ($filter:ty: response_headers) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_response_headers(context: u32, _: u32, last: u32) -> u32 {
            HttpRuntime::<$filter>::on_headers(&RUNTIME, context, Side::Response, last)
        }
    };
    ($filter:ty: response_body) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_response_body(context: u32, len: u32, last: u32) -> u32 {
            HttpRuntime::<$filter>::on_body(&RUNTIME, context, Side::Response, len, last)
        }
    };
    ($filter:ty: response_trailers) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_response_trailers(context: u32, _: u32) -> u32 {
            HttpRuntime::<$filter>::on_trailers(&RUNTIME, context, Side::Response)
        }
    };
    ($filter:ty: log) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_log(context: u32) {
            RUNTIME.with(|runtime| runtime.on_log(context));
        }
    };
    ($filter:ty: tick) => {
        $crate::export_tick!();
    };
    ($filter:ty: http_call) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_http_call_response(
            context: u32,
            call: u32,
            headers: u32,
            body: u32,
            trailers: u32,
        ) {
            RUNTIME.with(|runtime| runtime.on_http_call_response(context, call, headers, body, trailers));
        }
    };
    ($filter:ty: queue) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_queue_ready(context: u32, queue: u32) {
            RUNTIME.with(|runtime| runtime.on_queue_ready(context, queue));
        }
    };
    ($filter:ty: grpc_call) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_grpc_receive(context: u32, call: u32, len: u32) {
            RUNTIME.with(|runtime| runtime.on_grpc_receive(context, call, len));
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_grpc_close(context: u32, call: u32, status: u32) {
            RUNTIME.with(|runtime| runtime.on_grpc_close(context, call, status));
        }
    };
}

/// One callback with its exported name. An unknown method is a mistake in the filter, which the trait reports.
#[doc(hidden)]
#[macro_export]
macro_rules! export_network_callback {
    (on_new_connection) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_new_connection(context: u32) -> u32 {
            RUNTIME.with(|runtime| runtime.on_new_connection(context))
        }
    };
    (on_downstream_data) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_downstream_data(context: u32, len: u32, last: u32) -> u32 {
            RUNTIME.with(|runtime| runtime.on_downstream_data(context, len, last))
        }
    };
    (on_upstream_data) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_upstream_data(context: u32, len: u32, last: u32) -> u32 {
            RUNTIME.with(|runtime| runtime.on_upstream_data(context, len, last))
        }
    };
    (on_downstream_close) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_downstream_connection_close(context: u32, by: u32) {
            RUNTIME.with(|runtime| runtime.on_downstream_close(context, by));
        }
    };
    (on_upstream_close) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_upstream_connection_close(context: u32, by: u32) {
            RUNTIME.with(|runtime| runtime.on_upstream_close(context, by));
        }
    };
    (on_tick) => {
        $crate::export_tick!();
    };
    ($other:ident) => {};
}

/// The timer.
#[doc(hidden)]
#[macro_export]
macro_rules! export_tick {
    () => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_tick(context: u32) {
            RUNTIME.with(|runtime| runtime.on_tick(context));
        }
    };
}
