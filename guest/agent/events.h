/* What the main loop waits for. Every registration is edge-triggered: the owner reads or writes until EAGAIN. */
#ifndef MAYFLY_EVENTS_H
#define MAYFLY_EVENTS_H

#include <stdint.h>

#define EVENT_PORT 1u
#define EVENT_CHILD 2u
#define EVENT_LISTEN 3u
#define EVENT_FROZEN 4u
#define EVENT_STREAM 0x100u /* | slot << 2 | channel; channel 0: a terminal, both ways */
#define EVENT_DRAIN 0x200u  /* | slot << 2 */
#define EVENT_CONNECTION 0x10000u /* | place; looked at first, a place has any bits */

/* Adds fd to the main loop's epoll set, or changes what it is watched for; it leaves the set when closed.
 * Returns 0 or -errno. */
int events_watch(int fd, uint32_t event, uint32_t epoll_events);

#endif
