// A check of API keys in C, on the ABI itself: who has a key may pass, and the upstream is told who it is.
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "json.h"
#include "proxy_wasm.h"

// A key that is shorter can be guessed.
enum { SHORTEST = 16 };

typedef struct Key {
    struct Key *next;
    char *name;
    char *key;
} Key;

typedef struct {
    // The request header that carries the key.
    char *header;
    Key *keys;
} Config;

// Filters may share a VM, each with a root context and a configuration of its own; a stream has that of its root.
typedef struct Context {
    struct Context *next;
    uint32_t id;
    Config *config;
} Context;

static Context *contexts[1024];

static Context **find(uint32_t id) {
    Context **at = &contexts[id % (sizeof contexts / sizeof *contexts)];
    while (*at && (*at)->id != id) at = &(*at)->next;
    return at;
}

CALLBACK(proxy_abi_version_0_2_1, void)(void) {}

// The host writes what it gives where this says. There is a NUL behind it.
CALLBACK(proxy_on_memory_allocate, void *)(size_t len) {
    char *bytes = malloc(len + 1);
    if (bytes) bytes[len] = 0;
    return bytes;
}

static void say(uint32_t level, const char *line) { proxy_log(level, line, strlen(line)); }

// Reads the keys; false when something is wrong with them, which has then been said.
static bool read_keys(Config *config, const char **at) {
    bool first = true;
    if (!json_take(at, '{')) return say(LOG_ERROR, "`keys`: names and their keys are expected"), false;
    while (json_member(at, &first)) {
        Key *key = calloc(1, sizeof *key);
        if (!key) abort();
        key->next = config->keys;
        config->keys = key;
        key->name = json_text(at);
        if (key->name && json_take(at, ':')) key->key = json_text(at);
        if (!key->key) return say(LOG_ERROR, "`keys`: a text is expected for each name"), false;
        if (strlen(key->key) < SHORTEST) {
            char line[200];
            snprintf(line, sizeof line, "the key of `%.100s` has less than %d bytes", key->name, SHORTEST);
            return say(LOG_ERROR, line), false;
        }
    }
    return json_take(at, '}') || (say(LOG_ERROR, "`keys` has no end"), false);
}

// Reads the configuration; false when something is wrong with it, which has then been said.
static bool read_config(Config *config, const char *at) {
    bool first = true;
    if (!json_take(&at, '{')) return say(LOG_ERROR, "an object is expected"), false;
    while (json_member(&at, &first)) {
        char *field = json_text(&at);
        bool is_good = field && json_take(&at, ':');
        if (is_good && !strcmp(field, "keys")) {
            if (!read_keys(config, &at)) return free(field), false;
        } else if (is_good && !strcmp(field, "header") && !config->header) {
            is_good = (config->header = json_text(&at));
        } else {
            is_good = false;
        }
        if (!is_good) {
            char line[200];
            snprintf(line, sizeof line, "`%.100s` is not known, or not a text", field ? field : "");
            return say(LOG_ERROR, line), free(field), false;
        }
        free(field);
    }
    if (!json_take(&at, '}') || !json_take(&at, 0)) return say(LOG_ERROR, "the configuration is no JSON"), false;
    if (!config->keys) return say(LOG_ERROR, "`keys` is empty, so that nobody could come in; add a key"), false;
    if (!config->header) config->header = strdup("x-api-key");
    return config->header;
}

CALLBACK(proxy_on_context_create, void)(uint32_t id, uint32_t root) {
    Context *context = calloc(1, sizeof *context), *of_root = root ? *find(root) : NULL;
    if (!context) abort();
    context->id = id;
    context->config = of_root ? of_root->config : NULL;
    *find(id) = context;
}

CALLBACK(proxy_on_delete, void)(uint32_t id) {
    Context **at = find(id), *context = *at;
    if (!context) return;
    *at = context->next;
    free(context);
}

CALLBACK(proxy_on_configure, uint32_t)(uint32_t root, size_t len) {
    char *text = NULL;
    Config *config = calloc(1, sizeof *config);
    Context *context = *find(root);
    if (!context || !config) return false;
    if (proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, len, &text, &len) != OK) return false;
    // Streams may hold it for as long as there is the VM: it is never freed.
    context->config = config;
    bool is_good = read_config(config, text ? text : "");
    free(text);
    return is_good;
}

// In a time that does not tell where they differ.
static bool same(const char *a, size_t a_len, const char *b, size_t b_len) {
    unsigned char differ = 0;
    if (a_len != b_len) return false;
    for (size_t i = 0; i < a_len; i++) differ |= (unsigned char)(a[i] ^ b[i]);
    return !differ;
}

// Header maps travel as one block: how many pairs, the lengths of all, and then names and values with a NUL behind
// each. Numbers have 32 bits.
static uint32_t number(const char *at) {
    uint32_t number;
    memcpy(&number, at, sizeof number);
    return number;
}

// How many values the header has, and the last of them.
static size_t carried(const char *pairs, const char *header, const char **value, size_t *value_len) {
    if (!pairs) return 0;
    size_t found = 0, count = number(pairs);
    const char *lengths = pairs + 4, *text = lengths + 8 * count;
    for (; count; count--, lengths += 8) {
        const char *name = text;
        size_t name_len = number(lengths), len = number(lengths + 4);
        text += name_len + 1;
        if (!strcasecmp(name, header)) {
            *value = text;
            *value_len = len;
            found++;
        }
        text += len + 1;
    }
    return found;
}

static uint32_t refuse(void) {
    static const char NAME[] = "www-authenticate", VALUE[] = "ApiKey", BODY[] = "unauthorized\n";
    const uint32_t sizes[3] = {1, sizeof NAME - 1, sizeof VALUE - 1};
    char headers[sizeof sizes + sizeof NAME + sizeof VALUE];
    memcpy(headers, sizes, sizeof sizes);
    memcpy(headers + sizeof sizes, NAME, sizeof NAME);
    memcpy(headers + sizeof sizes + sizeof NAME, VALUE, sizeof VALUE);
    proxy_send_local_response(401, NULL, 0, BODY, sizeof BODY - 1, headers, sizeof headers, NO_GRPC_STATUS);
    return ACTION_PAUSE;
}

// What is not carried out must not let the request pass.
static uint32_t fail(void) {
    proxy_send_local_response(500, NULL, 0, NULL, 0, NULL, 0, NO_GRPC_STATUS);
    return ACTION_PAUSE;
}

static uint32_t check(const Config *config, const char *pairs) {
    const char *key = NULL, *name = NULL;
    size_t key_len = 0, count = carried(pairs, config->header, &key, &key_len);
    if (count == 0) return refuse();
    if (count > 1) return say(LOG_WARN, "several keys"), refuse();
    // All are compared, so that the time does not tell which one is nearly right.
    for (const Key *known = config->keys; known; known = known->next)
        if (same(known->key, strlen(known->key), key, key_len)) name = known->name;
    if (!name) return say(LOG_WARN, "unknown key"), refuse();
    if (proxy_remove_header_map_value(REQUEST_HEADERS, config->header, strlen(config->header)) != OK) return fail();
    if (proxy_replace_header_map_value(REQUEST_HEADERS, "x-user", 6, name, strlen(name)) != OK) return fail();
    return ACTION_CONTINUE;
}

CALLBACK(proxy_on_request_headers, uint32_t)(uint32_t id, uint32_t count, uint32_t end) {
    char *pairs = NULL;
    size_t len = 0;
    Context *context = *find(id);
    if (!context || !context->config) return fail();
    if (proxy_get_header_map_pairs(REQUEST_HEADERS, &pairs, &len) != OK) return fail();
    uint32_t action = check(context->config, pairs);
    free(pairs);
    return action;
}
