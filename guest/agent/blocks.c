#include "blocks.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "protocol.h"

/*
 * A host that keeps to the protocol never needs more: MAX_BUFFERED_BYTES, what each connection may have besides, and for
 * each the unused parts of its first and last block.
 */
#define BLOCKS ((MAX_BUFFERED_BYTES + MAX_CONNECTIONS * CONNECTION_FREE_BYTES) / BLOCK_BYTES + 2 * MAX_CONNECTIONS)
#define RETURN_ABOVE_BLOCKS 32u

_Static_assert(BLOCKS <= UINT16_MAX, "a block's number has 16 bits");

static uint8_t *arena;
static uint16_t next[BLOCKS];
static uint16_t free_first; /* the list of blocks that were given back; meaningful if free_count is not 0 */
static unsigned free_count, fresh; /* fresh: blocks from this number on were not used since the pool was last empty */

int blocks_init(void)
{
    size_t size = (size_t)BLOCKS * BLOCK_BYTES;
    if (arena)
        return 0;
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return -errno;
    madvise(at, size, MADV_NOHUGEPAGE);
    arena = at;
    return 0;
}

unsigned blocks_used(void) { return fresh - free_count; }

static uint16_t take_block(void)
{
    if (!free_count)
        return (uint16_t)fresh++;
    uint16_t block = free_first;
    free_first = next[block];
    free_count--;
    return block;
}

static void give_block(uint16_t block)
{
    next[block] = free_first;
    free_first = block;
    if (++free_count < fresh)
        return;
    if (fresh > RETURN_ABOVE_BLOCKS) /* the pool is empty: what was touched goes back to the machine */
        madvise(arena, (size_t)fresh * BLOCK_BYTES, MADV_DONTNEED);
    free_count = fresh = 0;
}

static uint8_t *bytes_of(uint16_t block) { return arena + (size_t)block * BLOCK_BYTES; }

bool blocks_append(struct block_queue *queue, const uint8_t *bytes, size_t n)
{
    size_t end = (queue->start + queue->length) % BLOCK_BYTES; /* of what the last block holds; 0: it is full */
    size_t room = queue->length && end ? BLOCK_BYTES - end : 0;
    if (n > room + (size_t)BLOCK_BYTES * (BLOCKS - blocks_used()))
        return false;
    if (n && !queue->length)
        queue->start = 0;
    while (n) {
        if (!room) {
            uint16_t block = take_block();
            if (queue->length)
                next[queue->last] = block;
            else
                queue->first = block;
            queue->last = block;
            end = 0;
            room = BLOCK_BYTES;
        }
        size_t part = n < room ? n : room;
        memcpy(bytes_of(queue->last) + end, bytes, part);
        queue->length += (uint32_t)part;
        bytes += part;
        n -= part;
        room = 0;
    }
    return true;
}

int blocks_parts(const struct block_queue *queue, struct iovec *parts, int count)
{
    size_t left = queue->length, start = queue->start;
    uint16_t block = queue->first;
    int used = 0;
    while (left && used < count) {
        size_t part = BLOCK_BYTES - start < left ? BLOCK_BYTES - start : left;
        parts[used++] = (struct iovec){bytes_of(block) + start, part};
        left -= part;
        start = 0;
        if (left)
            block = next[block];
    }
    return used;
}

void blocks_consume(struct block_queue *queue, size_t n)
{
    while (n && queue->length) {
        size_t held = BLOCK_BYTES - queue->start < queue->length ? BLOCK_BYTES - queue->start : queue->length;
        size_t part = n < held ? n : held;
        queue->start = (uint16_t)(queue->start + part);
        queue->length -= (uint32_t)part;
        n -= part;
        if (queue->length && queue->start < BLOCK_BYTES)
            continue;
        uint16_t block = queue->first;
        if (queue->length)
            queue->first = next[block];
        queue->start = 0;
        give_block(block);
    }
}
