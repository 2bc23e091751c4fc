/* A host for tests: speaks the protocol to an agent on a unix socket. What goes wrong ends the program. */
#ifndef MAYFLY_CLIENT_H
#define MAYFLY_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "protocol.h"
#include "wire.h"

#define CLIENT_OUTPUT_BYTES (4u << 20)

struct client_exit {
    bool seen;
    int32_t code, signal, error;
    uint64_t output_end, error_end;
};

/* One object at a time is enough for tests: what came of it. */
struct client {
    int fd;
    uint32_t epoch, next_id, object;
    bool acknowledges; /* sends an ACK for each DATA; on at first */
    uint8_t *bytes[2]; /* channels 2 and 3 */
    uint64_t received[2];
    bool ended[2];
    uint64_t input_kept;
    struct client_exit exit;
    uint32_t hello_count; /* objects in the HELLO_ACK */
    uint8_t hello_state;  /* of the first of them */
};

/* An agent that runs on this machine, in a directory of its own; its root for files is one below. */
struct client_agent {
    pid_t pid;
    char directory[32], socket_path[64], root_path[64];
};
void client_agent_start(struct client_agent *agent, const char *program);

/* Ends it and removes its directory. */
void client_agent_stop(struct client_agent *agent);

/* Connects to the socket and says hello; goes on with the object's streams from where it stands. */
void client_connect(struct client *c, const char *path);
void client_disconnect(struct client *c);

/* Sends a request. `stream` 0: a fresh one. Returns the errno of the answer; its result goes to `result`. */
int client_request(struct client *c, uint8_t type, uint32_t stream, const void *payload, size_t n, struct reader *result);
void client_send(struct client *c, uint8_t type, uint32_t stream, const void *payload, size_t n);

/* Receives frames until `*condition` is true. */
void client_until(struct client *c, const bool *condition);

/* Receives frames until so many bytes of the channel (2 or 3) have come. */
void client_until_bytes(struct client *c, unsigned channel, uint64_t n);

/* EXEC as a new object, with argv ended by NULL and an environment of PATH alone. */
int client_exec(struct client *c, uint32_t flags, const char *cwd, const char *const *argv);
void client_input(struct client *c, uint64_t offset, const void *bytes, size_t n);
void client_input_end(struct client *c, uint64_t offset);
int client_release(struct client *c);

#endif
