/* Requests about the machine as a whole. */
#ifndef MAYFLY_MACHINE_H
#define MAYFLY_MACHINE_H

#include <stdint.h>

#include "wire.h"

void machine_stats(struct writer *result);

/* Work for a child, see deferred.h: sync(2) and dropped caches. */
int machine_sync(void *unused, volatile uint64_t *result);

/* Work for a child: argument is a u64 limit in bytes; fills free memory with zeroes and gives it back. */
int machine_trim(void *max_bytes, volatile uint64_t *zeroed_bytes);

#endif
