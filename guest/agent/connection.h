/* TCP connections inside the guest that the host asked for: CONNECT, DATA, EOF, EXIT, RELEASE. */
#ifndef MAYFLY_CONNECTION_H
#define MAYFLY_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>

#include "frame.h"

/* Reserves memory and raises the agent's own limit of open files. Called once; returns 0 or -errno. */
int connections_init(void);

/* Carries out a CONNECT. Returns 0 if the connection stands, DEFERRED if the answer comes later, or -errno. */
int connection_open(const struct frame *frame);

/* Takes DATA, EOF or ACK of a stream whose object is a connection. */
void connection_receive(const struct frame *frame);

/* Forgets one; if it is open, it is reset. Returns 0 or -ENOENT. */
int connection_release(uint32_t id);

/* Resets and forgets all: their host is gone. */
void connections_reset(void);

/* Something happened to the socket in that place. */
void connection_event(unsigned place, uint32_t epoll_events);

/* Adds the frames that are due to the send buffer, in turn, while there is room. */
void connections_compose(void);

/* How many there are. */
unsigned connections_count(void);

static inline bool is_connection(uint32_t id) { return id >= FIRST_CONNECTION_ID && id <= MAX_CONNECTION_ID; }

#endif
