/* One host connection after another: epochs, acknowledgements, what is received and what is sent. */
#ifndef MAYFLY_SESSION_H
#define MAYFLY_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "wire.h"

/* How the session reaches the port: like read(2) and write(2), but returning -errno. */
struct port {
    ssize_t (*read)(void *bytes, size_t n);
    ssize_t (*write)(const void *bytes, size_t n);
};

void session_init(const struct port *port);

/* The port's state may have changed: try again to read and to write. */
void session_port_event(void);

/* Try again to read, many times over while there is nothing; what comes is answered before more is read. */
void session_expect(void);

/* The epoch of this host connection; 0 before the first. */
uint32_t session_epoch(void);

/* Reads from the port and carries out requests. Returns true if there is more to do at once. */
bool session_receive(void);

/* Writes what is due until the port takes no more. Returns true if there is more to do at once. */
bool session_send(void);

/* Frames for the send buffer, composed in turn from session_send. Bytes that there is room for; small frames always fit. */
size_t session_room(void);

/* Starts a frame; what is put into the writer is its payload. Nothing is sent unless the frame is ended. */
struct writer session_begin(uint8_t type, uint32_t stream);
void session_end(struct writer *w);

/* A frame whose payload is an offset: ACK or EOF. */
void session_offset(uint8_t type, uint32_t stream, uint64_t offset);

/* Answers a request: `error` is 0 or -errno, the result follows only on success. */
void session_reply(uint32_t stream, int error, const void *result, size_t length);

#endif
