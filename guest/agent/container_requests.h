/* CONTAINER and TEARDOWN: parse, check, carry out. */
#ifndef MAYFLY_CONTAINER_REQUESTS_H
#define MAYFLY_CONTAINER_REQUESTS_H

#include "frame.h"

/* Return 0, -errno, or DEFERRED. */
int run_container(const struct frame *frame);
int run_teardown(const struct frame *frame);

#endif
