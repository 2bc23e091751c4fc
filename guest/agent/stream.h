/* Streams: bytes with offsets, kept until the other side has acknowledged them. */
#ifndef MAYFLY_STREAM_H
#define MAYFLY_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "protocol.h"

/* A ring that starts over at its first byte whenever it is empty, so that little traffic touches few pages. */
struct ring {
    uint8_t *bytes;
    uint32_t head, length, touched;
};

/* Agent to host. Bytes from `acked` to `acked + ring.length` are kept; those before `sent` went out in this epoch. */
struct out_stream {
    struct ring ring;
    uint64_t acked, sent;
    uint64_t drain_left; /* bytes still to be read once the process has ended */
    int fd;              /* -1: closed */
    bool readable, ended, eof_sent;
};

/* Host to agent. Bytes before `kept` were delivered; the ring holds the ones behind. */
struct in_stream {
    struct ring ring;
    uint64_t kept, acked;
    uint64_t eof_offset;
    int fd; /* -1: closed */
    bool writable, eof_known;
};

/* Reserves address space for the rings of every object. Called once; returns 0 or -errno. */
int streams_init(void);

/* Makes the streams of an object's slot empty. */
void out_reset(struct out_stream *s, unsigned slot, unsigned channel);
void in_reset(struct in_stream *s, unsigned slot);

/* Forgets all bytes and gives memory back if much of it was touched. */
void out_drop(struct out_stream *s);
void in_drop(struct in_stream *s);

/* Bytes that may be put into the stream now: by its window, and by the bound on the sum of all. */
size_t out_room(const struct out_stream *s);

/* Reads at most `limit` bytes from fd into the stream, at `offset` of the file, or from where it stands if negative.
 * Returns what readv does, -EAGAIN without room, or -errno. */
ssize_t out_fill(struct out_stream *s, int fd, size_t limit, int64_t offset);

/* Copies at most n bytes that were not sent yet; returns how many, and counts them as sent. */
size_t out_take(struct out_stream *s, uint8_t *into, size_t n);

/* Acknowledges everything before offset. False, and nothing done, if the offset goes back or beyond `limit`. */
bool out_acknowledge(struct out_stream *s, uint64_t offset, uint64_t limit);

static inline uint64_t out_end(const struct out_stream *s) { return s->acked + s->ring.length; }
static inline uint64_t in_received(const struct in_stream *s) { return s->kept + s->ring.length; }

/*
 * Takes bytes from the host. What was received before is skipped; false if there is a gap or the window is exceeded.
 * Bytes go straight to fd while nothing is queued.
 */
bool in_accept(struct in_stream *s, uint64_t offset, const uint8_t *bytes, size_t n);

/* Writes queued bytes to fd until it takes no more. Returns 0, -EAGAIN, or -errno (then the rest counts as kept). */
int in_flush(struct in_stream *s);

/* Drops what is queued and not delivered: the host sends it again. */
void in_forget(struct in_stream *s);

/* Counts everything queued as kept, without delivering it. */
void in_discard(struct in_stream *s);

#endif
