// As much of JSON as the configuration needs: objects whose values are texts or objects.
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>

// Takes a character that is next, blanks aside; false when another one is.
bool json_take(const char **at, char wanted);

// Takes a text, which is the caller's to free; NULL when there is none. `\u` is not known: what is no ASCII may
// stand as it is.
char *json_text(const char **at);

// Whether another member of an object is there. `first` says whether none was before.
bool json_member(const char **at, bool *first);

#endif
