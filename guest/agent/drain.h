/* Output of processes that were left behind by their parent: read and dropped, so that they are not killed by it. */
#ifndef MAYFLY_DRAIN_H
#define MAYFLY_DRAIN_H

#include <stdbool.h>

/* Owns the pipe's reading end from now on; closes it when nobody can write any more, or when there are too many. */
void drain_take(int fd);

/* The pipe of that slot has something. */
void drain_event(unsigned slot);

/* Reads and drops. Returns true if there is more to do at once. */
bool drain_pump(void);

#endif
