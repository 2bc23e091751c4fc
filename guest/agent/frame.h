/* Incremental decoder of what the host sends. Finds the preamble anywhere, inside payloads as well. */
#ifndef MAYFLY_FRAME_H
#define MAYFLY_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "protocol.h"

struct frame {
    uint8_t type;
    uint16_t flags;
    uint32_t epoch, stream, length;
    uint8_t *payload; /* valid until the next call of decoder_feed; may be changed */
};

enum decoded { DECODED_MORE, DECODED_PREAMBLE, DECODED_FRAME };

struct decoder {
    uint8_t matched;               /* bytes of a possible preamble at the end of the input so far */
    uint8_t parsed;                /* how many of those the parser has been given already */
    uint8_t replay_at, replay_end; /* part of the preamble that turned out to be plain bytes */
    uint8_t hunting;               /* waiting for a preamble */
    uint32_t filled;               /* bytes of the current frame, header included */
    uint32_t length;               /* its payload's length, once the header is there */
    size_t plain;                  /* bytes at the start of the chunk that are known to hold no preamble */
    uint8_t header[FRAME_HEADER_BYTES];
    uint8_t payload[FRAME_MAX_PAYLOAD];
};

void decoder_init(struct decoder *d);

/*
 * Takes bytes from *at up to end and stops after the first event. DECODED_MORE means that all were taken. Bytes at the
 * end that may begin a preamble are held back, so that a frame cut short by a dead host is not completed with them.
 */
enum decoded decoder_feed(struct decoder *d, const uint8_t **at, const uint8_t *end, struct frame *frame);

/* There is nothing more to read now: the next decoder_feed (an empty one will do) parses what was held back. */
void decoder_settle(struct decoder *d);

/* Drops everything up to the next preamble. */
void decoder_hunt(struct decoder *d);

#endif
