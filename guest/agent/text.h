/* Small text files of /proc, /sys and cgroups. */
#ifndef MAYFLY_TEXT_H
#define MAYFLY_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Writes a whole small file that exists. Return 0 or -errno. */
int text_write(const char *path, const char *text);
int text_write_at(int directory, const char *path, const char *text);

/* Reads the start of a file and puts a NUL behind it. Returns the length or -errno. */
ssize_t text_read_at(int directory, const char *path, char *into, size_t size);

/* The decimal number behind the first `key` in the text; `fallback` without one. */
uint64_t text_number(const char *text, const char *key, uint64_t fallback);

#endif
