/* Bytes that a connection has not taken yet, in blocks of one pool. A queue touches only the memory that it needs. */
#ifndef MAYFLY_BLOCKS_H
#define MAYFLY_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct iovec;

#define BLOCK_BYTES 2048u

/* All zero: empty. */
struct block_queue {
    uint16_t first, last; /* numbers of blocks; meaningful if length is not 0 */
    uint16_t start;       /* of the first byte in the first block */
    uint32_t length;
};

/* Reserves address space. Called once; returns 0 or -errno. */
int blocks_init(void);

/* Puts n bytes behind the others. False, and nothing done, if the pool has not enough blocks. */
bool blocks_append(struct block_queue *queue, const uint8_t *bytes, size_t n);

/* Describes the first bytes in at most `count` parts. Returns how many parts. */
int blocks_parts(const struct block_queue *queue, struct iovec *parts, int count);

/* Takes n bytes off the front, at most all. */
void blocks_consume(struct block_queue *queue, size_t n);

/* Blocks that hold something. */
unsigned blocks_used(void);

#endif
