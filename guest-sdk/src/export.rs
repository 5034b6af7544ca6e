//! The exports of a filter's module. The attributes list what the filter implements.

/// Exports what every module has, and the callbacks that are listed. For the attribute [`crate::http_filter`].
#[doc(hidden)]
#[macro_export]
macro_rules! export_http {
    ($filter:ty: $($method:ident)*) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "exports have fixed names")]
        const _: () = {
            use $crate::internal::HttpRuntime;

            ::std::thread_local! {
                static RUNTIME: HttpRuntime<$filter> = const { HttpRuntime::new() };
            }

            $crate::export_common!($($method)*);
            $($crate::export_http_callback!($method);)*
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
    ($filter:ty: $($method:ident)*) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "exports have fixed names")]
        const _: () = {
            use $crate::internal::NetworkRuntime;

            ::std::thread_local! {
                static RUNTIME: NetworkRuntime<$filter> = const { NetworkRuntime::new() };
            }

            $crate::export_common!($($method)*);
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
    ($($method:ident)*) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_abi_version_0_2_1() {}

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
            const TICKS: bool = $crate::has_tick!($($method)*);
            RUNTIME.with(|runtime| runtime.on_configure(context, len, TICKS))
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_delete(context: u32) {
            RUNTIME.with(|runtime| runtime.on_delete(context));
        }
    };
}

/// Whether `on_tick` is among the methods.
#[doc(hidden)]
#[macro_export]
macro_rules! has_tick {
    () => { false };
    (on_tick $($rest:ident)*) => { true };
    ($other:ident $($rest:ident)*) => { $crate::has_tick!($($rest)*) };
}

/// One callback with its exported name. An unknown method is a mistake in the filter, which the trait reports.
#[doc(hidden)]
#[macro_export]
macro_rules! export_http_callback {
    (on_request_headers) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_request_headers(context: u32, _: u32, last: u32) -> u32 {
            RUNTIME.with(|runtime| runtime.on_request_headers(context, last))
        }
    };
    (on_request_body) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_request_body(context: u32, len: u32, last: u32) -> u32 {
            RUNTIME.with(|runtime| runtime.on_request_body(context, len, last))
        }
    };
    (on_request_trailers) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_request_trailers(context: u32, _: u32) -> u32 {
            RUNTIME.with(|runtime| runtime.on_request_trailers(context))
        }
    };
    (on_response_headers) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_response_headers(context: u32, _: u32, last: u32) -> u32 {
            RUNTIME.with(|runtime| runtime.on_response_headers(context, last))
        }
    };
    (on_response_body) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_response_body(context: u32, len: u32, last: u32) -> u32 {
            RUNTIME.with(|runtime| runtime.on_response_body(context, len, last))
        }
    };
    (on_response_trailers) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_response_trailers(context: u32, _: u32) -> u32 {
            RUNTIME.with(|runtime| runtime.on_response_trailers(context))
        }
    };
    (on_log) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_log(context: u32) {
            RUNTIME.with(|runtime| runtime.on_log(context));
        }
    };
    (on_tick) => {
        $crate::export_tick!();
    };
    ($other:ident) => {};
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
