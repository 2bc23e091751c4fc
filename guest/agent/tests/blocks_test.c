/* The pool of blocks against a model of plain bytes. */
#include <string.h>
#include <sys/uio.h>

#include "blocks.h"
#include "protocol.h"
#include "test.h"

#define QUEUES 40
#define QUEUE_BYTES 100000u

static struct block_queue queues[QUEUES];
static uint8_t model[QUEUES][QUEUE_BYTES];
static size_t lengths[QUEUES];
static uint32_t state = 12345;

static uint32_t random_below(uint32_t n)
{
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % n;
}

static bool equal(int q)
{
    struct iovec parts[128];
    int count = blocks_parts(&queues[q], parts, 128);
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        if (memcmp(parts[i].iov_base, model[q] + at, parts[i].iov_len))
            return false;
        at += parts[i].iov_len;
    }
    return at == lengths[q] && queues[q].length == at;
}

static void bytes_come_out_as_they_went_in(void)
{
    static uint8_t bytes[20000];
    for (int step = 0; step < 20000; step++) {
        int q = (int)random_below(QUEUES);
        size_t n = random_below(step % 3 ? 3000 : 20000);
        if (random_below(2) && n <= QUEUE_BYTES - lengths[q]) {
            for (size_t i = 0; i < n; i++)
                bytes[i] = (uint8_t)random_below(256);
            CHECK(blocks_append(&queues[q], bytes, n));
            memcpy(model[q] + lengths[q], bytes, n);
            lengths[q] += n;
        } else {
            n = n < lengths[q] ? n : lengths[q];
            blocks_consume(&queues[q], n);
            lengths[q] -= n;
            memmove(model[q], model[q] + n, lengths[q]);
        }
        if (!equal(q)) {
            CHECK(!"the same bytes");
            return;
        }
    }
    for (int q = 0; q < QUEUES; q++) {
        blocks_consume(&queues[q], lengths[q]);
        lengths[q] = 0;
    }
    CHECK(blocks_used() == 0);
}

static void a_full_pool_refuses_and_keeps_what_it_has(void)
{
    static uint8_t bytes[STREAM_WINDOW_BYTES];
    static struct block_queue many[1000];
    unsigned filled = 0;
    while (filled < 1000 && blocks_append(&many[filled], bytes, sizeof bytes))
        filled++;
    CHECK(filled > MAX_BUFFERED_BYTES / STREAM_WINDOW_BYTES && filled < 1000);
    unsigned used = blocks_used();
    CHECK(!blocks_append(&many[filled], bytes, sizeof bytes) && blocks_used() == used && many[filled].length == 0);
    blocks_consume(&many[0], many[0].length);
    CHECK(blocks_append(&many[filled], bytes, sizeof bytes));
    for (unsigned i = 0; i <= filled; i++)
        blocks_consume(&many[i], many[i].length);
    CHECK(blocks_used() == 0);
}

/* Each with a byte of a block consumed, and what the protocol lets each have besides the common part. */
static void whoever_keeps_to_the_protocol_always_has_room(void)
{
    static uint8_t bytes[STREAM_WINDOW_BYTES];
    static struct block_queue all[MAX_CONNECTIONS];
    size_t shared = MAX_BUFFERED_BYTES;
    for (unsigned i = 0; i < MAX_CONNECTIONS; i++) {
        size_t n = CONNECTION_FREE_BYTES + (i < 128 ? MAX_BUFFERED_BYTES / 128 : 0);
        shared -= n - CONNECTION_FREE_BYTES;
        CHECK(blocks_append(&all[i], bytes, BLOCK_BYTES));
        blocks_consume(&all[i], BLOCK_BYTES - 1);
        CHECK(blocks_append(&all[i], bytes, n - 1));
    }
    CHECK(shared == 0);
    for (unsigned i = 0; i < MAX_CONNECTIONS; i++)
        blocks_consume(&all[i], all[i].length);
    CHECK(blocks_used() == 0);
}

int main(void)
{
    if (blocks_init())
        return 1;
    RUN(bytes_come_out_as_they_went_in);
    RUN(a_full_pool_refuses_and_keeps_what_it_has);
    RUN(whoever_keeps_to_the_protocol_always_has_room);
    return test_summary("blocks_test");
}
