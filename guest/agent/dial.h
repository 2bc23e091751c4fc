/* Connecting a TCP socket without waiting. */
#ifndef MAYFLY_DIAL_H
#define MAYFLY_DIAL_H

#include <stdint.h>

/*
 * Begins to connect to a numeric address of either family. Returns 0 if the connection stands, -EINPROGRESS if that is
 * not decided yet, or -errno; *fd is the socket, or -1 after an error.
 */
int dial(const char *address, uint16_t port, int *fd);

/* What has become of it: 0, -EINPROGRESS or -errno. */
int dial_result(int fd);

#endif
