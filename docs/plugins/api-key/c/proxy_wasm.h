// The part of Proxy-Wasm 0.2.1 that the filter beside this needs.
#ifndef PROXY_WASM_H
#define PROXY_WASM_H

#include <stddef.h>
#include <stdint.h>

// A function of the host; all of them answer with a status, of which 0 is "done".
#define HOST(name) __attribute__((import_module("env"), import_name(#name))) uint32_t name

// A function that the host calls.
#define CALLBACK(name, type) __attribute__((export_name(#name))) type name

enum { OK = 0 };
enum { LOG_WARN = 3, LOG_ERROR = 4 };
enum { ACTION_CONTINUE = 0, ACTION_PAUSE = 1 };
enum { REQUEST_HEADERS = 0 };
enum { PLUGIN_CONFIGURATION = 7 };
enum { NO_GRPC_STATUS = -1 };

HOST(proxy_log)(uint32_t level, const char *message, size_t len);
HOST(proxy_get_buffer_bytes)(uint32_t buffer, size_t start, size_t max, char **bytes, size_t *len);
HOST(proxy_get_header_map_pairs)(uint32_t map, char **pairs, size_t *len);
HOST(proxy_replace_header_map_value)(uint32_t map, const char *name, size_t name_len, const char *value, size_t len);
HOST(proxy_remove_header_map_value)(uint32_t map, const char *name, size_t name_len);
HOST(proxy_send_local_response)(uint32_t status, const char *details, size_t details_len, const char *body,
                                size_t body_len, const char *headers, size_t headers_len, int32_t grpc_status);

#endif
