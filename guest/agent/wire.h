/* Bounds-checked reading and writing of little-endian fields. A reader or writer that has failed stays failed. */
#ifndef MAYFLY_WIRE_H
#define MAYFLY_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct reader {
    const uint8_t *at, *end;
    bool bad;
};

struct writer {
    uint8_t *at, *end;
    bool full;
};

/* The next n bytes, or NULL if there are fewer. */
static inline const uint8_t *take_bytes(struct reader *r, size_t n)
{
    if (r->bad || (size_t)(r->end - r->at) < n) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *bytes = r->at;
    r->at += n;
    return bytes;
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "fields are copied as they are");

static inline __attribute__((always_inline)) uint64_t take_integer(struct reader *r, size_t n)
{
    const uint8_t *bytes = take_bytes(r, n);
    uint64_t value = 0;
    if (bytes)
        memcpy(&value, bytes, n);
    return value;
}

static inline uint16_t take_u16(struct reader *r) { return (uint16_t)take_integer(r, 2); }
static inline uint32_t take_u32(struct reader *r) { return (uint32_t)take_integer(r, 4); }
static inline uint64_t take_u64(struct reader *r) { return take_integer(r, 8); }

/* Copies a length-prefixed string with a NUL behind it. Fails if it has a NUL inside or does not fit into `size`. */
static inline void take_string(struct reader *r, char *into, size_t size)
{
    size_t length = take_u16(r);
    const uint8_t *bytes = take_bytes(r, length);
    into[0] = 0;
    if (!bytes)
        return;
    if (length >= size || memchr(bytes, 0, length)) {
        r->bad = true;
        return;
    }
    memcpy(into, bytes, length);
    into[length] = 0;
}

/* A string of a payload that may be changed, terminated in place: it is moved down by one byte over its own length.
 * NULL if it has a NUL inside. */
static inline char *take_string_in_place(struct reader *r)
{
    size_t length = take_u16(r);
    uint8_t *bytes = (uint8_t *)(uintptr_t)take_bytes(r, length);
    if (!bytes || memchr(bytes, 0, length)) {
        r->bad = true;
        return NULL;
    }
    char *string = (char *)bytes - 1;
    memmove(string, bytes, length);
    string[length] = 0;
    return string;
}

/* True if everything was read and nothing is left over. */
static inline bool reader_done(const struct reader *r) { return !r->bad && r->at == r->end; }

static inline uint8_t *put_space(struct writer *w, size_t n)
{
    if (w->full || (size_t)(w->end - w->at) < n) {
        w->full = true;
        return NULL;
    }
    uint8_t *space = w->at;
    w->at += n;
    return space;
}

static inline __attribute__((always_inline)) void put_integer(struct writer *w, uint64_t value, size_t n)
{
    uint8_t *space = put_space(w, n);
    if (space)
        memcpy(space, &value, n);
}

static inline void put_u8(struct writer *w, uint8_t value) { put_integer(w, value, 1); }
static inline void put_u16(struct writer *w, uint16_t value) { put_integer(w, value, 2); }
static inline void put_u32(struct writer *w, uint32_t value) { put_integer(w, value, 4); }
static inline void put_u64(struct writer *w, uint64_t value) { put_integer(w, value, 8); }

static inline void put_bytes(struct writer *w, const void *bytes, size_t n)
{
    uint8_t *space = put_space(w, n);
    if (space && n)
        memcpy(space, bytes, n);
}

static inline void put_string(struct writer *w, const char *string)
{
    size_t length = strlen(string);
    put_u16(w, (uint16_t)length);
    put_bytes(w, string, length);
}

#endif
