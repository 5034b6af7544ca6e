// The part of Proxy-Wasm 0.2.1 that the filter beside this needs, and nothing of any SDK.
#ifndef PROXY_WASM_H
#define PROXY_WASM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define C_LINKAGE extern "C"
#else
#define C_LINKAGE
#endif

// A function of the host; all of them answer with a status, of which 0 is "done".
#define HOST(name) C_LINKAGE __attribute__((import_module("env"), import_name(#name))) uint32_t name

// A function that the host calls.
#define CALLBACK(name, type) C_LINKAGE __attribute__((export_name(#name))) type name

enum { LOG_INFO = 2 };
enum { ACTION_CONTINUE = 0, ACTION_PAUSE = 1 };
enum { REQUEST = 0 };
enum { REQUEST_HEADERS = 0, RESPONSE_HEADERS = 2 };
enum { DOWNSTREAM_DATA = 2, UPSTREAM_DATA = 3, CALL_BODY = 4, PLUGIN_CONFIGURATION = 7 };

HOST(proxy_log)(uint32_t level, const char *message, size_t len);
HOST(proxy_get_buffer_bytes)(uint32_t buffer, size_t start, size_t max, char **bytes, size_t *len);
HOST(proxy_set_buffer_bytes)(uint32_t buffer, size_t start, size_t size, const char *bytes, size_t len);
HOST(proxy_get_header_map_value)(uint32_t map, const char *name, size_t name_len, char **value, size_t *len);
HOST(proxy_add_header_map_value)(uint32_t map, const char *name, size_t name_len, const char *value, size_t len);
HOST(proxy_set_tick_period_milliseconds)(uint32_t period);
HOST(proxy_set_effective_context)(uint32_t context);
HOST(proxy_continue_stream)(uint32_t stream);
HOST(proxy_http_call)(const char *cluster, size_t cluster_len, const char *headers, size_t headers_len,
                      const char *body, size_t body_len, const char *trailers, size_t trailers_len,
                      uint32_t timeout_milliseconds, uint32_t *token);

#endif
