/* The main loop, the same in a guest and on a host. */
#ifndef MAYFLY_LOOP_H
#define MAYFLY_LOOP_H

#include <stdint.h>

/* Blocks signals and makes the epoll set. Called once; returns 0 or -errno. */
int loop_init(void);

/* Waits for events and does what is due. `other` gets the events that are not the loop's own. Never returns. */
_Noreturn void loop_run(void (*other)(uint32_t event));

#endif
