//! The tables: every host function and every callback, one row each.
//!
//! The types of the rows are names that the consumer gives a meaning to, since a pointer is a number to the
//! host and a pointer to the guest:
//!
//! | name | meaning |
//! |---|---|
//! | `Int` | a 32-bit number: an enum, a token, a size in bytes, milliseconds |
//! | `Long`, `Delta` | a 64-bit number, unsigned and signed |
//! | `Ptr`, `Len` | where bytes that the guest owns begin, and how many they are |
//! | `OutInt`, `OutLong` | where the host writes a number |
//! | `OutPtr`, `OutLen` | where the host writes the address and the length of bytes that it allocated in the guest |

/// Passes the Proxy-Wasm host functions (module [`crate::HOST_MODULE`]) to the macro `$visit`.
///
/// A row is `topic::name(argument: Type, ...);`. Each returns a [`crate::Status`].
#[macro_export]
macro_rules! host_functions {
    ($visit:path) => {
        $visit! {
            /// Writes a line to the host's log.
            log::proxy_log(level: Int, message: Ptr, message_len: Len);
            /// The lowest level that the host logs (0.2.1).
            log::proxy_get_log_level(level: OutInt);

            /// Nanoseconds since 1970.
            time::proxy_get_current_time_nanoseconds(time: OutLong);
            /// Calls `proxy_on_tick` at this interval from now on; 0 ends it.
            time::proxy_set_tick_period_milliseconds(period: Int);

            /// A range of a buffer.
            body::proxy_get_buffer_bytes(buffer: Int, start: Int, max_len: Int, data: OutPtr, data_len: OutLen);
            /// Replaces a range of a buffer.
            body::proxy_set_buffer_bytes(buffer: Int, start: Int, len: Int, data: Ptr, data_len: Len);
            /// The length of a buffer.
            body::proxy_get_buffer_status(buffer: Int, len: OutInt, flags: OutInt);

            /// The size of a map once serialised, in bytes.
            headers::proxy_get_header_map_size(map: Int, size: OutInt);
            /// A whole map, serialised.
            headers::proxy_get_header_map_pairs(map: Int, data: OutPtr, data_len: OutLen);
            /// Replaces a whole map.
            headers::proxy_set_header_map_pairs(map: Int, data: Ptr, data_len: Len);
            /// The value of a key.
            headers::proxy_get_header_map_value(map: Int, key: Ptr, key_len: Len, data: OutPtr, data_len: OutLen);
            /// Adds a pair beside those that are there.
            headers::proxy_add_header_map_value(map: Int, key: Ptr, key_len: Len, value: Ptr, value_len: Len);
            /// Sets a key to one value.
            headers::proxy_replace_header_map_value(map: Int, key: Ptr, key_len: Len, value: Ptr, value_len: Len);
            /// Removes all values of a key.
            headers::proxy_remove_header_map_value(map: Int, key: Ptr, key_len: Len);

            /// Resumes a paused stream (0.2).
            stream::proxy_continue_stream(stream: Int);
            /// Closes or resets a stream (0.2).
            stream::proxy_close_stream(stream: Int);
            /// Resumes the request (0.1).
            stream::proxy_continue_request();
            /// Resumes the response (0.1).
            stream::proxy_continue_response();
            /// Has the route chosen again (0.1).
            stream::proxy_clear_route_cache();
            /// Answers in the place of the upstream.
            stream::proxy_send_local_response(
                status: Int, details: Ptr, details_len: Len, body: Ptr, body_len: Len,
                headers: Ptr, headers_len: Len, grpc_status: Int
            );
            /// Has the host functions that follow in this callback act on another context.
            stream::proxy_set_effective_context(context: Int);
            /// Ends a context that `proxy_on_done` held back.
            stream::proxy_done();
            /// The status of the call whose end is being reported.
            stream::proxy_get_status(code: OutInt, message: OutPtr, message_len: OutLen);

            /// Sends an HTTP request to a cluster.
            call::proxy_http_call(
                cluster: Ptr, cluster_len: Len, headers: Ptr, headers_len: Len, body: Ptr, body_len: Len,
                trailers: Ptr, trailers_len: Len, timeout: Int, call: OutInt
            );

            /// Sends one gRPC message and awaits one.
            grpc::proxy_grpc_call(
                service: Ptr, service_len: Len, name: Ptr, name_len: Len, method: Ptr, method_len: Len,
                metadata: Ptr, metadata_len: Len, message: Ptr, message_len: Len, timeout: Int, call: OutInt
            );
            /// Opens a gRPC stream.
            grpc::proxy_grpc_stream(
                service: Ptr, service_len: Len, name: Ptr, name_len: Len, method: Ptr, method_len: Len,
                metadata: Ptr, metadata_len: Len, call: OutInt
            );
            /// Sends a message on a gRPC stream.
            grpc::proxy_grpc_send(call: Int, message: Ptr, message_len: Len, end_of_stream: Int);
            /// Ends a gRPC call or stream and wants to hear no more of it.
            grpc::proxy_grpc_cancel(call: Int);
            /// Ends the sending half of a gRPC stream.
            grpc::proxy_grpc_close(call: Int);

            /// Reads a value of shared data, and its compare-and-swap number.
            shared::proxy_get_shared_data(key: Ptr, key_len: Len, data: OutPtr, data_len: OutLen, cas: OutInt);
            /// Writes a value of shared data; `cas` 0 is unconditional.
            shared::proxy_set_shared_data(key: Ptr, key_len: Len, value: Ptr, value_len: Len, cas: Int);
            /// Opens a queue by name, and creates it when there is none.
            shared::proxy_register_shared_queue(name: Ptr, name_len: Len, queue: OutInt);
            /// Finds a queue of any VM by name.
            shared::proxy_resolve_shared_queue(
                vm_id: Ptr, vm_id_len: Len, name: Ptr, name_len: Len, queue: OutInt
            );
            /// Appends to a queue.
            shared::proxy_enqueue_shared_queue(queue: Int, value: Ptr, value_len: Len);
            /// Takes from a queue.
            shared::proxy_dequeue_shared_queue(queue: Int, data: OutPtr, data_len: OutLen);

            /// Defines a metric.
            metrics::proxy_define_metric(kind: Int, name: Ptr, name_len: Len, metric: OutInt);
            /// Sets a counter or a gauge, or records into a histogram.
            metrics::proxy_record_metric(metric: Int, value: Long);
            /// Adds to a counter or a gauge.
            metrics::proxy_increment_metric(metric: Int, by: Delta);
            /// Reads a counter or a gauge.
            metrics::proxy_get_metric(metric: Int, value: OutLong);

            /// Reads a property.
            properties::proxy_get_property(path: Ptr, path_len: Len, data: OutPtr, data_len: OutLen);
            /// Writes a property below `wasm.`.
            properties::proxy_set_property(path: Ptr, path_len: Len, value: Ptr, value_len: Len);
            /// The configuration of the VM or of the plugin, whichever is being started (0.1).
            properties::proxy_get_configuration(data: OutPtr, data_len: OutLen);

            /// Calls a function that is no part of the contract.
            foreign::proxy_call_foreign_function(
                name: Ptr, name_len: Len, argument: Ptr, argument_len: Len, data: OutPtr, data_len: OutLen
            );
        }
    };
}

/// Passes the WASI functions (modules [`crate::WASI_MODULES`]) to the macro `$visit`.
///
/// A row is `name(argument: Type, ...);`. Each returns a [`crate::WasiErrno`]. `proc_exit`, which returns
/// nothing, is not in the table.
#[macro_export]
macro_rules! wasi_functions {
    ($visit:path) => {
        $visit! {
            args_sizes_get(count: OutInt, size: OutInt);
            args_get(vector: OutPtr, buffer: OutPtr);
            environ_sizes_get(count: OutInt, size: OutInt);
            environ_get(vector: OutPtr, buffer: OutPtr);
            clock_res_get(clock: Int, resolution: OutLong);
            clock_time_get(clock: Int, precision: Long, time: OutLong);
            random_get(buffer: OutPtr, len: Len);
            sched_yield();
            poll_oneoff(subscriptions: Ptr, events: OutPtr, count: Int, ready: OutInt);
            fd_write(fd: Int, vectors: Ptr, count: Int, written: OutInt);
            fd_read(fd: Int, vectors: Ptr, count: Int, read: OutInt);
            fd_pread(fd: Int, vectors: Ptr, count: Int, offset: Long, read: OutInt);
            fd_pwrite(fd: Int, vectors: Ptr, count: Int, offset: Long, written: OutInt);
            fd_seek(fd: Int, offset: Delta, whence: Int, position: OutLong);
            fd_tell(fd: Int, position: OutLong);
            fd_close(fd: Int);
            fd_sync(fd: Int);
            fd_datasync(fd: Int);
            fd_advise(fd: Int, offset: Long, len: Long, advice: Int);
            fd_allocate(fd: Int, offset: Long, len: Long);
            fd_renumber(fd: Int, to: Int);
            fd_fdstat_get(fd: Int, stat: OutPtr);
            fd_fdstat_set_flags(fd: Int, flags: Int);
            fd_fdstat_set_rights(fd: Int, base: Long, inheriting: Long);
            fd_filestat_get(fd: Int, stat: OutPtr);
            fd_filestat_set_size(fd: Int, size: Long);
            fd_filestat_set_times(fd: Int, access: Long, modified: Long, flags: Int);
            fd_prestat_get(fd: Int, stat: OutPtr);
            fd_prestat_dir_name(fd: Int, path: OutPtr, path_len: Len);
            fd_readdir(fd: Int, buffer: OutPtr, len: Len, cookie: Long, used: OutInt);
            path_create_directory(fd: Int, path: Ptr, path_len: Len);
            path_filestat_get(fd: Int, flags: Int, path: Ptr, path_len: Len, stat: OutPtr);
            path_filestat_set_times(
                fd: Int, flags: Int, path: Ptr, path_len: Len, access: Long, modified: Long, which: Int
            );
            path_link(
                fd: Int, flags: Int, path: Ptr, path_len: Len, to_fd: Int, to_path: Ptr, to_path_len: Len
            );
            path_open(
                fd: Int, dir_flags: Int, path: Ptr, path_len: Len, flags: Int, base: Long, inheriting: Long,
                fd_flags: Int, opened: OutInt
            );
            path_readlink(fd: Int, path: Ptr, path_len: Len, buffer: OutPtr, len: Len, used: OutInt);
            path_remove_directory(fd: Int, path: Ptr, path_len: Len);
            path_rename(fd: Int, path: Ptr, path_len: Len, to_fd: Int, to_path: Ptr, to_path_len: Len);
            path_symlink(path: Ptr, path_len: Len, fd: Int, to_path: Ptr, to_path_len: Len);
            path_unlink_file(fd: Int, path: Ptr, path_len: Len);
            proc_raise(signal: Int);
            sock_accept(fd: Int, flags: Int, accepted: OutInt);
            sock_recv(fd: Int, vectors: Ptr, count: Int, flags: Int, read: OutInt, out_flags: OutInt);
            sock_send(fd: Int, vectors: Ptr, count: Int, flags: Int, written: OutInt);
            sock_shutdown(fd: Int, how: Int);
        }
    };
}

/// Passes the callbacks that a guest may export to the macro `$visit`. All are optional.
///
/// A row is `name(argument: Type, ...) -> Type;`, with `()` for no result. `proxy_on_request_headers` and
/// `proxy_on_response_headers` are listed as 0.2 has them; in 0.1 they have no `end_of_stream`.
#[macro_export]
macro_rules! callbacks {
    ($visit:path) => {
        $visit! {
            /// A context begins: a stream of `parent`, or with `parent` 0 a plugin.
            proxy_on_context_create(context: Int, parent: Int) -> ();
            /// The VM starts; 0 refuses.
            proxy_on_vm_start(context: Int, configuration_len: Int) -> Int;
            /// The plugin is configured; 0 refuses.
            proxy_on_configure(context: Int, configuration_len: Int) -> Int;
            /// The timer.
            proxy_on_tick(context: Int) -> ();

            /// A network stream begins.
            proxy_on_new_connection(context: Int) -> Int;
            /// Bytes from the downstream.
            proxy_on_downstream_data(context: Int, len: Int, end_of_stream: Int) -> Int;
            /// Bytes from the upstream.
            proxy_on_upstream_data(context: Int, len: Int, end_of_stream: Int) -> Int;
            /// The downstream is closed.
            proxy_on_downstream_connection_close(context: Int, peer: Int) -> ();
            /// The upstream is closed.
            proxy_on_upstream_connection_close(context: Int, peer: Int) -> ();

            /// The headers of a request.
            proxy_on_request_headers(context: Int, count: Int, end_of_stream: Int) -> Int;
            /// A part of a request's body.
            proxy_on_request_body(context: Int, len: Int, end_of_stream: Int) -> Int;
            /// The trailers of a request.
            proxy_on_request_trailers(context: Int, count: Int) -> Int;
            /// The headers of a response.
            proxy_on_response_headers(context: Int, count: Int, end_of_stream: Int) -> Int;
            /// A part of a response's body.
            proxy_on_response_body(context: Int, len: Int, end_of_stream: Int) -> Int;
            /// The trailers of a response.
            proxy_on_response_trailers(context: Int, count: Int) -> Int;

            /// An HTTP call ended; all zeros when it failed.
            proxy_on_http_call_response(
                context: Int, call: Int, headers: Int, body_len: Int, trailers: Int
            ) -> ();
            /// The initial metadata of a gRPC call.
            proxy_on_grpc_receive_initial_metadata(context: Int, call: Int, count: Int) -> ();
            /// A message of a gRPC call.
            proxy_on_grpc_receive(context: Int, call: Int, len: Int) -> ();
            /// The trailing metadata of a gRPC call.
            proxy_on_grpc_receive_trailing_metadata(context: Int, call: Int, count: Int) -> ();
            /// A gRPC call ended.
            proxy_on_grpc_close(context: Int, call: Int, status: Int) -> ();
            /// A queue that this plugin registered has something in it.
            proxy_on_queue_ready(context: Int, queue: Int) -> ();
            /// A foreign function calls back.
            proxy_on_foreign_function(context: Int, function: Int, len: Int) -> ();

            /// A context ends; 0 holds it back until `proxy_done`.
            proxy_on_done(context: Int) -> Int;
            /// A stream is to be logged.
            proxy_on_log(context: Int) -> ();
            /// A context is gone.
            proxy_on_delete(context: Int) -> ();
        }
    };
}
