/* The network of a world without a machine: one real server on the loopback device, whatever address is asked for. */
#ifndef MAYFLY_NETWORK_H
#define MAYFLY_NETWORK_H

#include <stdbool.h>

#define SERVER_PORT 80
#define SILENT_PORT 81 /* nothing answers: connecting goes on until network_decide */

/* The next connection that the agent has made, non-blocking, or -1. The caller closes it. */
int network_accept(void);

/* The last socket that connects to SILENT_PORT reaches the server, or is refused. */
void network_decide(bool works);

/* Closes one in a way that the agent sees as a reset. */
void network_abort(int fd);

/* Tells the agent what has happened to its sockets. */
void network_events(void);

/* No connection, and none that waits to be accepted. */
void network_reset(void);

#endif
