#include "frame.h"

#include <stdbool.h>
#include <string.h>

static const uint8_t preamble[PREAMBLE_BYTES + 1] = PREAMBLE;

/* For each byte, one more than its last place in the preamble without the preamble's final byte; 0 = not in it. */
static const uint8_t last_place[256] = {
    [0x4d] = 1, [0x61] = 2,  [0x66] = 4,  [0x6c] = 5,  [0x79] = 6,  [0xa7] = 8,  [0xff] = 9,
    [0x00] = 10, [0x01] = 11, [0x7f] = 12, [0x0d] = 13, [0x0a] = 14, [0x1a] = 15,
};

void decoder_init(struct decoder *d)
{
    d->matched = d->parsed = d->replay_at = d->replay_end = 0;
    d->plain = 0;
    decoder_hunt(d);
}

void decoder_hunt(struct decoder *d)
{
    d->hunting = 1;
    d->filled = 0;
}

void decoder_settle(struct decoder *d)
{
    if (d->matched > d->parsed) {
        d->replay_at = d->parsed;
        d->replay_end = d->parsed = d->matched;
    }
}

static uint32_t read_u32(const uint8_t *p) { return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24; }

static void frame_of(struct decoder *d, struct frame *frame)
{
    frame->type = d->header[1];
    frame->flags = (uint16_t)(d->header[2] | d->header[3] << 8);
    frame->epoch = read_u32(d->header + 4);
    frame->stream = read_u32(d->header + 8);
    frame->length = d->length;
    frame->payload = d->payload;
    d->filled = 0;
}

/* Gives the parser n bytes without a preamble; returns how many it took, which is fewer only if a frame is complete. */
static size_t parse(struct decoder *d, const uint8_t *bytes, size_t n, struct frame *frame, bool *complete)
{
    size_t taken = 0;
    *complete = false;
    if (d->hunting)
        return n;
    if (d->filled < FRAME_HEADER_BYTES) {
        taken = FRAME_HEADER_BYTES - d->filled < n ? FRAME_HEADER_BYTES - d->filled : n;
        memcpy(d->header + d->filled, bytes, taken);
        d->filled += (uint32_t)taken;
        if (d->filled < FRAME_HEADER_BYTES)
            return taken;
        d->length = read_u32(d->header + 12);
        if (d->header[0] != FRAME_MAGIC || d->length > FRAME_MAX_PAYLOAD) {
            decoder_hunt(d);
            return n;
        }
    }
    uint32_t have = d->filled - FRAME_HEADER_BYTES;
    size_t part = d->length - have < n - taken ? d->length - have : n - taken;
    memcpy(d->payload + have, bytes + taken, part);
    d->filled += (uint32_t)part;
    if (d->filled == FRAME_HEADER_BYTES + d->length) {
        frame_of(d, frame);
        *complete = true;
    }
    return taken + part;
}

/* Whether one of the bytes at which the search looks occurs in the preamble, in four steps of it at once: in most data none does.
 * The preamble's final byte is in the table, too: it occurs in it twice. */
static bool any_in_preamble(const uint8_t *bytes)
{
    const uint8_t *last = bytes + PREAMBLE_BYTES - 1;
    return last_place[last[0]] || (last_place[last[PREAMBLE_BYTES]] | last_place[last[2 * PREAMBLE_BYTES]] |
                                   last_place[last[3 * PREAMBLE_BYTES]]);
}

/*
 * Number of bytes before the first place from which the chunk equals the preamble, whole or up to the chunk's end.
 * Horspool's search: the byte below the preamble's last position tells how far it can be moved.
 */
static size_t plain_bytes(const uint8_t *bytes, size_t n)
{
    size_t at = 0;
    while (at + PREAMBLE_BYTES <= n) {
        while (at + 4 * PREAMBLE_BYTES <= n && !any_in_preamble(bytes + at))
            at += 4 * PREAMBLE_BYTES;
        if (at + PREAMBLE_BYTES > n)
            break;
        uint8_t last = bytes[at + PREAMBLE_BYTES - 1];
        if (last == preamble[PREAMBLE_BYTES - 1] && !memcmp(bytes + at, preamble, PREAMBLE_BYTES))
            return at;
        at += (size_t)(PREAMBLE_BYTES - last_place[last]);
    }
    for (at = n < PREAMBLE_BYTES ? 0 : n - PREAMBLE_BYTES + 1; at < n; at++)
        if (!memcmp(bytes + at, preamble, n - at))
            break;
    return at;
}

/* Goes on with a match that has begun. Returns true if the preamble is complete. */
static bool match_preamble(struct decoder *d, const uint8_t **at, const uint8_t *end)
{
    while (*at < end && **at == preamble[d->matched]) {
        ++*at;
        if (++d->matched < PREAMBLE_BYTES)
            continue;
        d->matched = d->parsed = 0;
        d->hunting = 0;
        d->filled = 0;
        return true;
    }
    if (*at < end) { /* the first byte of the preamble occurs in it only once, so no other match is under way */
        d->replay_at = d->parsed;
        d->replay_end = d->matched;
        d->matched = d->parsed = 0;
    }
    return false;
}

enum decoded decoder_feed(struct decoder *d, const uint8_t **at, const uint8_t *end, struct frame *frame)
{
    bool complete;
    for (;;) {
        if (d->replay_at < d->replay_end) {
            size_t n = d->replay_end - d->replay_at;
            d->replay_at += (uint8_t)parse(d, preamble + d->replay_at, n, frame, &complete);
            if (complete)
                return DECODED_FRAME;
            continue;
        }
        if (*at == end)
            return DECODED_MORE;
        if (d->matched) {
            if (match_preamble(d, at, end))
                return DECODED_PREAMBLE;
            continue;
        }
        if (d->plain == 0)
            d->plain = plain_bytes(*at, (size_t)(end - *at));
        if (d->plain == 0) {
            d->matched = 1;
            ++*at;
            continue;
        }
        size_t taken = parse(d, *at, d->plain, frame, &complete);
        *at += taken;
        d->plain -= taken;
        if (complete)
            return DECODED_FRAME;
    }
}
