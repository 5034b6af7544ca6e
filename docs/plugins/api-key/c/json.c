#include "json.h"

#include <stdlib.h>
#include <string.h>

bool json_take(const char **at, char wanted) {
    while (**at && strchr(" \t\r\n", **at)) ++*at;
    if (**at != wanted) return false;
    if (wanted) ++*at;
    return true;
}

char *json_text(const char **at) {
    static const char ESCAPED[] = "\"\\/bfnrt", MEANT[] = "\"\\/\b\f\n\r\t";
    if (!json_take(at, '"')) return NULL;
    char *text = malloc(strlen(*at) + 1), *to = text;
    if (!text) return NULL;
    for (; (unsigned char)**at >= ' ' && **at != '"'; ++*at) {
        if (**at == '\\') {
            ++*at;
            const char *known = **at ? strchr(ESCAPED, **at) : NULL;
            if (!known) break;
            *to++ = MEANT[known - ESCAPED];
        } else {
            *to++ = **at;
        }
    }
    *to = 0;
    if (**at != '"') {
        free(text);
        return NULL;
    }
    ++*at;
    return text;
}

bool json_member(const char **at, bool *first) {
    const char *here = *at;
    if (json_take(&here, '}')) return false;
    bool more = *first || json_take(at, ',');
    *first = false;
    return more;
}
