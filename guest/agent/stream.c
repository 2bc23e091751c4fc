#include "stream.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define STREAMS_PER_OBJECT 3
#define RESERVED_EACH_BYTES 16384u /* what a stream may always keep, so that stuck ones cannot starve the others */
#define SHARED_BYTES (MAX_BUFFERED_BYTES - 2u * MAX_OBJECTS * RESERVED_EACH_BYTES)
#define RETURN_ABOVE_BYTES 65536u

static uint8_t *arena;
static size_t shared_used;

int streams_init(void)
{
    size_t size = (size_t)MAX_OBJECTS * STREAMS_PER_OBJECT * STREAM_WINDOW_BYTES;
    if (arena)
        return 0;
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return -errno;
    madvise(at, size, MADV_NOHUGEPAGE); /* one touched byte must not cost 2 MiB */
    arena = at;
    return 0;
}

static void ring_reset(struct ring *ring, unsigned slot, unsigned which)
{
    memset(ring, 0, sizeof *ring);
    ring->bytes = arena + ((size_t)slot * STREAMS_PER_OBJECT + which) * STREAM_WINDOW_BYTES;
}

static void ring_release(struct ring *ring)
{
    if (ring->touched > RETURN_ABOVE_BYTES)
        madvise(ring->bytes, STREAM_WINDOW_BYTES, MADV_DONTNEED);
    ring->head = ring->length = ring->touched = 0;
}

static void ring_consume(struct ring *ring, uint32_t n)
{
    ring->length -= n;
    ring->head = ring->length ? (ring->head + n) % STREAM_WINDOW_BYTES : 0;
}

/* The one or two parts of the ring that hold n bytes from `skip` bytes behind its head on. */
static int ring_parts(const struct ring *ring, uint32_t skip, size_t n, struct iovec parts[2])
{
    uint32_t start = (ring->head + skip) % STREAM_WINDOW_BYTES;
    size_t first = STREAM_WINDOW_BYTES - start < n ? STREAM_WINDOW_BYTES - start : n;
    parts[0] = (struct iovec){ring->bytes + start, first};
    parts[1] = (struct iovec){ring->bytes, n - first};
    return n > first ? 2 : 1;
}

static void ring_grew(struct ring *ring, uint32_t n)
{
    uint32_t reach = ring->head + ring->length + n;
    ring->length += n;
    if (reach > STREAM_WINDOW_BYTES)
        reach = STREAM_WINDOW_BYTES;
    if (reach > ring->touched)
        ring->touched = reach;
}

static size_t shared_part(size_t length) { return length > RESERVED_EACH_BYTES ? length - RESERVED_EACH_BYTES : 0; }

void out_reset(struct out_stream *s, unsigned slot, unsigned channel)
{
    memset(s, 0, sizeof *s);
    ring_reset(&s->ring, slot, channel == CHANNEL_OUTPUT ? 1 : 2);
    s->fd = -1;
}

void in_reset(struct in_stream *s, unsigned slot)
{
    memset(s, 0, sizeof *s);
    ring_reset(&s->ring, slot, 0);
    s->fd = -1;
}

void out_drop(struct out_stream *s)
{
    shared_used -= shared_part(s->ring.length);
    ring_release(&s->ring);
}

void in_drop(struct in_stream *s) { ring_release(&s->ring); }

size_t out_room(const struct out_stream *s)
{
    size_t length = s->ring.length;
    size_t reserved = length < RESERVED_EACH_BYTES ? RESERVED_EACH_BYTES - length : 0;
    size_t room = reserved + (SHARED_BYTES - shared_used);
    return room < STREAM_WINDOW_BYTES - length ? room : STREAM_WINDOW_BYTES - length;
}

ssize_t out_fill(struct out_stream *s, int fd, size_t limit, int64_t offset)
{
    struct iovec parts[2];
    size_t room = out_room(s);
    if (limit > room)
        limit = room;
    if (limit == 0)
        return -EAGAIN;
    int count = ring_parts(&s->ring, s->ring.length, limit, parts);
    ssize_t n = offset < 0 ? readv(fd, parts, count) : preadv(fd, parts, count, offset);
    if (n < 0)
        return -errno;
    shared_used -= shared_part(s->ring.length);
    ring_grew(&s->ring, (uint32_t)n);
    shared_used += shared_part(s->ring.length);
    return n;
}

size_t out_take(struct out_stream *s, uint8_t *into, size_t n)
{
    struct iovec parts[2];
    uint64_t left = out_end(s) - s->sent;
    if (n > left)
        n = (size_t)left;
    ring_parts(&s->ring, (uint32_t)(s->sent - s->acked), n, parts);
    memcpy(into, parts[0].iov_base, parts[0].iov_len);
    if (parts[1].iov_len)
        memcpy(into + parts[0].iov_len, parts[1].iov_base, parts[1].iov_len);
    s->sent += n;
    return n;
}

bool out_acknowledge(struct out_stream *s, uint64_t offset, uint64_t limit)
{
    if (offset < s->acked || offset > limit || limit > out_end(s))
        return false;
    shared_used -= shared_part(s->ring.length);
    ring_consume(&s->ring, (uint32_t)(offset - s->acked));
    shared_used += shared_part(s->ring.length);
    s->acked = offset;
    return true;
}

void in_discard(struct in_stream *s)
{
    s->kept += s->ring.length;
    ring_consume(&s->ring, s->ring.length);
}

void in_forget(struct in_stream *s)
{
    ring_consume(&s->ring, s->ring.length);
    s->acked = s->kept;
    s->eof_known = s->eof_known && s->eof_offset == s->kept;
}

static void in_queue(struct in_stream *s, const uint8_t *bytes, size_t n)
{
    struct iovec parts[2];
    ring_parts(&s->ring, s->ring.length, n, parts);
    memcpy(parts[0].iov_base, bytes, parts[0].iov_len);
    if (parts[1].iov_len)
        memcpy(parts[1].iov_base, bytes + parts[0].iov_len, parts[1].iov_len);
    ring_grew(&s->ring, (uint32_t)n);
}

bool in_accept(struct in_stream *s, uint64_t offset, const uint8_t *bytes, size_t n)
{
    uint64_t received = in_received(s);
    if (offset > received || offset + n < offset || (s->eof_known && offset + n > s->eof_offset))
        return false;
    if (offset + n <= received)
        return true;
    size_t seen = (size_t)(received - offset);
    bytes += seen;
    n -= seen;
    if (n > STREAM_WINDOW_BYTES - s->ring.length)
        return false;
    if (s->fd < 0) {
        s->kept += n;
        return true;
    }
    while (n && s->ring.length == 0 && s->writable) {
        ssize_t written = write(s->fd, bytes, n);
        if (written < 0)
            break; /* in_flush meets the same error and deals with it */
        s->kept += (uint64_t)written;
        bytes += written;
        n -= (size_t)written;
    }
    if (n)
        in_queue(s, bytes, n);
    return true;
}

int in_flush(struct in_stream *s)
{
    struct iovec parts[2];
    while (s->ring.length) {
        if (s->fd < 0) {
            in_discard(s);
            return 0;
        }
        int count = ring_parts(&s->ring, 0, s->ring.length, parts);
        ssize_t n = writev(s->fd, parts, count);
        if (n < 0 && errno == EAGAIN) {
            s->writable = false;
            return -EAGAIN;
        }
        if (n < 0 && errno != EINTR) {
            int error = -errno;
            in_discard(s);
            return error;
        }
        if (n > 0) {
            s->kept += (uint64_t)n;
            ring_consume(&s->ring, (uint32_t)n);
        }
    }
    return 0;
}
