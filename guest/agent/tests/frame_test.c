/* The decoder: every chunking gives the same frames, and the preamble is found wherever it stands. */
#include "frame.h"

#include <string.h>

#include "test.h"

#define MAX_EVENTS 64

struct event {
    enum decoded kind;
    uint8_t type;
    uint32_t epoch, stream, length, sum;
};

struct log {
    struct event events[MAX_EVENTS];
    int count;
};

static struct decoder decoder;

static size_t put_frame(uint8_t *at, uint8_t type, uint32_t epoch, const void *payload, uint32_t length)
{
    uint8_t header[FRAME_HEADER_BYTES] = {FRAME_MAGIC, type};
    memcpy(header + 4, &epoch, 4);
    memcpy(header + 12, &length, 4);
    memcpy(at, header, sizeof header);
    memcpy(at + sizeof header, payload, length);
    return sizeof header + length;
}

static size_t put_preamble(uint8_t *at)
{
    memcpy(at, PREAMBLE, PREAMBLE_BYTES);
    return PREAMBLE_BYTES;
}

static void drain(struct log *log, const uint8_t *at, const uint8_t *end)
{
    struct frame frame;
    for (enum decoded kind; (kind = decoder_feed(&decoder, &at, end, &frame)) != DECODED_MORE && log->count < MAX_EVENTS;) {
        struct event *event = &log->events[log->count++];
        memset(event, 0, sizeof *event);
        event->kind = kind;
        if (kind == DECODED_PREAMBLE)
            continue;
        event->type = frame.type;
        event->epoch = frame.epoch;
        event->stream = frame.stream;
        event->length = frame.length;
        for (uint32_t i = 0; i < frame.length; i++)
            event->sum = event->sum * 31 + frame.payload[i];
    }
}

static struct log decode_whole(const uint8_t *bytes, size_t n)
{
    struct log log = {.count = 0};
    decoder_init(&decoder);
    drain(&log, bytes, bytes + n);
    decoder_settle(&decoder);
    drain(&log, bytes, bytes);
    return log;
}

static bool same(const struct log *a, const struct log *b)
{
    return a->count == b->count && !memcmp(a->events, b->events, sizeof a->events[0] * (size_t)a->count);
}

/* Two connections, plain frames, beginnings of preambles inside and at the ends of payloads. */
static size_t sample(uint8_t *at)
{
    uint8_t *start = at;
    memcpy(at, "rubbish\xa7", 8);
    at += 8;
    at += put_preamble(at);
    at += put_frame(at, TYPE_HELLO, 7, "\1\0\0\0\0\0\0\0", 8);
    at += put_frame(at, TYPE_PING, 7, "", 0);
    at += put_frame(at, TYPE_PING, 7, "MayMayfly\0\xa7\xff MM", 15);
    at += put_frame(at, TYPE_DATA, 7, "ends in Mayfl", 13);
    at += put_frame(at, TYPE_PING, 7, "M", 1);
    at += put_frame(at, TYPE_DATA, 7, "cut short by a dead host", 24) - 9;
    at += put_preamble(at);
    at += put_frame(at, TYPE_HELLO, 8, "\1\0\0\0\0\0\0\0", 8);
    at += put_frame(at, TYPE_PING, 8, "Mayfly", 6);
    return (size_t)(at - start);
}

static void whole_stream_gives_its_frames(void)
{
    uint8_t bytes[512];
    struct log log = decode_whole(bytes, sample(bytes));
    static const uint8_t types[] = {0, TYPE_HELLO, TYPE_PING, TYPE_PING, TYPE_DATA, TYPE_PING, 0, TYPE_HELLO, TYPE_PING};
    CHECK(log.count == (int)sizeof types);
    for (int i = 0; i < log.count && i < (int)sizeof types; i++)
        CHECK(log.events[i].type == types[i]);
    CHECK(log.events[1].epoch == 7 && log.events[7].epoch == 8);
}

static void every_two_and_three_chunks_give_the_same(void)
{
    uint8_t bytes[512];
    size_t n = sample(bytes);
    struct log whole = decode_whole(bytes, n);
    for (size_t a = 0; a <= n; a++) {
        for (size_t b = a; b <= n; b++) {
            struct log log = {.count = 0};
            decoder_init(&decoder);
            drain(&log, bytes, bytes + a);
            drain(&log, bytes + a, bytes + b);
            drain(&log, bytes + b, bytes + n);
            decoder_settle(&decoder);
            drain(&log, bytes, bytes);
            if (!same(&whole, &log)) {
                CHECK(!"same frames");
                return;
            }
        }
    }
}

static void every_chunk_size_gives_the_same(void)
{
    uint8_t bytes[512];
    size_t n = sample(bytes);
    struct log whole = decode_whole(bytes, n);
    for (size_t size = 1; size <= n; size++) {
        struct log log = {.count = 0};
        decoder_init(&decoder);
        for (size_t at = 0; at < n; at += size)
            drain(&log, bytes + at, bytes + (at + size < n ? at + size : n));
        decoder_settle(&decoder);
        drain(&log, bytes, bytes);
        CHECK(same(&whole, &log));
    }
}

/* After each byte there is a pause, so that what was held back is parsed: a preamble is found all the same. */
static void pauses_anywhere_lose_no_preamble(void)
{
    uint8_t bytes[512];
    size_t n = sample(bytes);
    struct log log = {.count = 0};
    decoder_init(&decoder);
    for (size_t at = 0; at < n; at++) {
        drain(&log, bytes + at, bytes + at + 1);
        decoder_settle(&decoder);
        drain(&log, bytes, bytes);
    }
    int preambles = 0;
    for (int i = 0; i < log.count; i++)
        preambles += log.events[i].kind == DECODED_PREAMBLE;
    CHECK(preambles == 2);
    CHECK(log.events[log.count - 1].type == TYPE_PING && log.events[log.count - 1].epoch == 8);
}

static void a_frame_that_ends_like_a_preamble_waits_for_the_pause(void)
{
    uint8_t bytes[128], *at = bytes;
    struct log log = {.count = 0};
    at += put_preamble(at);
    at += put_frame(at, TYPE_PING, 1, "xM", 2);
    decoder_init(&decoder);
    drain(&log, bytes, at);
    CHECK(log.count == 1);
    decoder_settle(&decoder);
    drain(&log, at, at);
    CHECK(log.count == 2 && log.events[1].length == 2);
}

/* The whole point of holding back: what a dead host left unfinished must not be finished by the next one's preamble. */
static void a_cut_frame_is_not_completed_by_a_preamble(void)
{
    for (size_t missing = 1; missing <= PREAMBLE_BYTES; missing++) {
        uint8_t bytes[256], *at = bytes;
        at += put_preamble(at);
        at += put_frame(at, TYPE_DATA, 1, "0123456789abcdefghij", 20) - missing;
        at += put_preamble(at);
        at += put_frame(at, TYPE_HELLO, 2, "", 0);
        struct log log = decode_whole(bytes, (size_t)(at - bytes));
        CHECK(log.count == 3 && log.events[1].kind == DECODED_PREAMBLE && log.events[2].type == TYPE_HELLO);
    }
}

static void a_preamble_inside_a_payload_starts_over(void)
{
    for (size_t before = 0; before < 40; before++) {
        uint8_t bytes[256], payload[64] = {0}, *at = bytes;
        at += put_preamble(at);
        memcpy(payload + before, PREAMBLE, PREAMBLE_BYTES);
        at += put_frame(at, TYPE_DATA, 1, payload, sizeof payload);
        struct log log = decode_whole(bytes, (size_t)(at - bytes));
        CHECK(log.count == 2 && log.events[0].kind == DECODED_PREAMBLE && log.events[1].kind == DECODED_PREAMBLE);
    }
}

/* Among bytes of which none is in the preamble, and among those that are: the search takes long steps through the first. */
static void a_preamble_is_found_wherever_it_stands(void)
{
    static const char fills[] = {'x', 0, '\n', 'M'};
    for (size_t i = 0; i < sizeof fills; i++) {
        for (size_t before = 0; before < 400; before++) {
            uint8_t bytes[1024], payload[512], *at = bytes;
            memset(payload, fills[i], sizeof payload);
            at += put_preamble(at);
            memcpy(payload + before, PREAMBLE, PREAMBLE_BYTES);
            at += put_frame(at, TYPE_DATA, 1, payload, sizeof payload);
            struct log log = decode_whole(bytes, (size_t)(at - bytes));
            CHECK(log.count == 2 && log.events[0].kind == DECODED_PREAMBLE && log.events[1].kind == DECODED_PREAMBLE);
        }
    }
}

static void malformed_headers_wait_for_a_preamble(void)
{
    uint8_t bytes[256], *at = bytes;
    uint32_t too_long = FRAME_MAX_PAYLOAD + 1;
    at += put_preamble(at);
    uint8_t *magic = at;
    at += put_frame(at, TYPE_PING, 1, "", 0);
    *magic = 0xA6;
    at += put_frame(at, TYPE_PING, 1, "", 0);
    at += put_preamble(at);
    uint8_t *length = at + 12;
    at += put_frame(at, TYPE_PING, 1, "", 0);
    memcpy(length, &too_long, 4);
    at += put_frame(at, TYPE_PING, 1, "", 0);
    at += put_preamble(at);
    at += put_frame(at, TYPE_PING, 3, "", 0);
    struct log log = decode_whole(bytes, (size_t)(at - bytes));
    CHECK(log.count == 4 && log.events[3].epoch == 3);
}

static void the_longest_payload_is_taken(void)
{
    static uint8_t bytes[FRAME_MAX_PAYLOAD + 64], payload[FRAME_MAX_PAYLOAD];
    memset(payload, 'M', sizeof payload);
    size_t n = put_preamble(bytes);
    n += put_frame(bytes + n, TYPE_PING, 1, payload, sizeof payload);
    struct log log = decode_whole(bytes, n);
    CHECK(log.count == 2 && log.events[1].length == FRAME_MAX_PAYLOAD);
}

static void random_bytes_do_no_harm(void)
{
    static uint8_t bytes[4096];
    struct log log;
    srand(1);
    decoder_init(&decoder);
    for (int round = 0; round < 500; round++) {
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = rand() % 4 ? (uint8_t)PREAMBLE[rand() % PREAMBLE_BYTES] : (uint8_t)rand();
        if (round % 3 == 0)
            put_preamble(bytes + rand() % 4000);
        log.count = 0;
        drain(&log, bytes, bytes + sizeof bytes);
    }
    CHECK(true);
}

int main(void)
{
    RUN(whole_stream_gives_its_frames);
    RUN(every_two_and_three_chunks_give_the_same);
    RUN(every_chunk_size_gives_the_same);
    RUN(pauses_anywhere_lose_no_preamble);
    RUN(a_frame_that_ends_like_a_preamble_waits_for_the_pause);
    RUN(a_cut_frame_is_not_completed_by_a_preamble);
    RUN(a_preamble_inside_a_payload_starts_over);
    RUN(a_preamble_is_found_wherever_it_stands);
    RUN(malformed_headers_wait_for_a_preamble);
    RUN(the_longest_payload_is_taken);
    RUN(random_bytes_do_no_harm);
    return test_summary("frame_test");
}
