// A filter in C, on the raw ABI, for HTTP and for TCP. It is C++ as well: the suite builds it as either.
//
// Requests: it logs the visitor and prints it, and tells in response headers what it knows. A request for
// /held waits for the timer, one for /ask for the answer of the cluster `other`. Connections: it makes what
// comes from downstream loud, and says before what comes from upstream who passed it on.
#include "proxy_wasm.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef __cplusplus
static const char LANGUAGE[] = "C++";
#else
static const char LANGUAGE[] = "C";
#endif

// Bytes that the host gave; the allocator's, with a NUL behind them.
typedef struct {
    char *bytes;
    size_t len;
} Text;

// A request that is held, by the token of its call; 0 is for those that wait for the timer.
typedef struct Held {
    struct Held *next;
    uint32_t context;
    uint32_t token;
} Held;

static Text configuration;
static Held *held;

// The host writes what it gives where this says.
CALLBACK(proxy_on_memory_allocate, void *)(size_t len) {
    char *bytes = (char *)malloc(len + 1);
    if (bytes) bytes[len] = 0;
    return bytes;
}

CALLBACK(proxy_abi_version_0_2_1, void)(void) {}

static Text buffer(uint32_t kind) {
    Text text = {NULL, 0};
    proxy_get_buffer_bytes(kind, 0, SIZE_MAX / 2, &text.bytes, &text.len);
    return text;
}

// A request header, or "nobody".
static Text request_header(const char *name) {
    Text value = {NULL, 0};
    proxy_get_header_map_value(REQUEST_HEADERS, name, strlen(name), &value.bytes, &value.len);
    if (!value.bytes) value.bytes = strdup("nobody");
    return value;
}

static void add_header(uint32_t map, const char *name, const char *value) {
    proxy_add_header_map_value(map, name, strlen(name), value, strlen(value));
}

static void say(const char *what, const char *of) {
    char line[256];
    snprintf(line, sizeof line, "%s: %s %s", LANGUAGE, what, of);
    proxy_log(LOG_INFO, line, strlen(line));
}

static void hold(uint32_t context, uint32_t token) {
    Held *one = (Held *)malloc(sizeof *one);
    one->next = held;
    one->context = context;
    one->token = token;
    held = one;
}

// Resumes the requests that wait for a token, with a header for the upstream when there is something to tell.
static void release(uint32_t token, const char *answer) {
    for (Held **at = &held; *at;) {
        Held *one = *at;
        if (one->token != token) {
            at = &one->next;
            continue;
        }
        *at = one->next;
        proxy_set_effective_context(one->context);
        if (answer) add_header(REQUEST_HEADERS, "x-answer", answer);
        proxy_continue_stream(REQUEST);
        free(one);
    }
}

// Header maps travel as numbers and texts; each number is 32 bits, and each text has a NUL behind it.
static uint32_t ask(void) {
    static const char *const fields[] = {":method", "GET", ":path", "/may-it-pass", ":authority", "authority"};
    enum { FIELDS = sizeof fields / sizeof *fields };
    char map[256];
    uint32_t sizes[1 + FIELDS] = {FIELDS / 2};
    size_t at = sizeof sizes;
    for (size_t i = 0; i < FIELDS; i++) {
        sizes[i + 1] = (uint32_t)strlen(fields[i]);
        strcpy(map + at, fields[i]);
        at += sizes[i + 1] + 1;
    }
    memcpy(map, sizes, sizeof sizes);
    uint32_t token = 0;
    proxy_http_call("other", 5, map, at, NULL, 0, NULL, 0, 5000, &token);
    return token;
}

CALLBACK(proxy_on_configure, uint32_t)(uint32_t context, size_t len) {
    configuration = buffer(PLUGIN_CONFIGURATION);
    proxy_set_tick_period_milliseconds(10);
    return len == configuration.len;
}

CALLBACK(proxy_on_request_headers, uint32_t)(uint32_t context, uint32_t count, uint32_t end) {
    Text visitor = request_header("x-visitor"), path = request_header(":path");
    uint32_t action = ACTION_CONTINUE;
    say("a request of", visitor.bytes);
    printf("%s prints: %s\n", LANGUAGE, visitor.bytes);
    if (!strcmp(path.bytes, "/held")) {
        hold(context, 0);
        action = ACTION_PAUSE;
    } else if (!strcmp(path.bytes, "/ask")) {
        uint32_t token = ask();
        if (token) hold(context, token), action = ACTION_PAUSE;
    } else if (!strcmp(path.bytes, "/sleep")) {
        // The host does not wait: the hour is over at once.
        say("sleeping left", sleep(3600) == 0 ? "nothing" : "something");
    }
    free(visitor.bytes);
    free(path.bytes);
    return action;
}

CALLBACK(proxy_on_tick, void)(uint32_t context) { release(0, NULL); }

CALLBACK(proxy_on_http_call_response, void)(uint32_t context, uint32_t token, uint32_t headers, size_t body_len,
                                            uint32_t trailers) {
    Text body = buffer(CALL_BODY);
    release(token, body.bytes ? body.bytes : "none");
    free(body.bytes);
}

CALLBACK(proxy_on_response_headers, uint32_t)(uint32_t context, uint32_t count, uint32_t end) {
    char text[64];
    unsigned char random[8];
    struct timespec now;
    add_header(RESPONSE_HEADERS, "x-language", LANGUAGE);
    add_header(RESPONSE_HEADERS, "x-config", configuration.bytes ? configuration.bytes : "");
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(text, sizeof text, "%lld", (long long)now.tv_sec);
    add_header(RESPONSE_HEADERS, "x-time", text);
    if (getentropy(random, sizeof random)) return ACTION_CONTINUE;
    for (size_t i = 0; i < sizeof random; i++) snprintf(text + 2 * i, 3, "%02x", random[i]);
    add_header(RESPONSE_HEADERS, "x-random", text);
    return ACTION_CONTINUE;
}

CALLBACK(proxy_on_new_connection, uint32_t)(uint32_t context) {
    say("a connection", "begins");
    return ACTION_CONTINUE;
}

CALLBACK(proxy_on_downstream_data, uint32_t)(uint32_t context, size_t len, uint32_t end) {
    Text data = buffer(DOWNSTREAM_DATA);
    for (size_t i = 0; i < data.len; i++) data.bytes[i] = (char)toupper((unsigned char)data.bytes[i]);
    proxy_set_buffer_bytes(DOWNSTREAM_DATA, 0, data.len, data.bytes, data.len);
    free(data.bytes);
    return ACTION_CONTINUE;
}

CALLBACK(proxy_on_upstream_data, uint32_t)(uint32_t context, size_t len, uint32_t end) {
    char mark[16];
    int mark_len = snprintf(mark, sizeof mark, "%s: ", LANGUAGE);
    if (len > 0) proxy_set_buffer_bytes(UPSTREAM_DATA, 0, 0, mark, (size_t)mark_len);
    return ACTION_CONTINUE;
}

CALLBACK(proxy_on_downstream_connection_close, void)(uint32_t context, uint32_t peer) {
    say("a connection", "ends");
}
