/* What a host says and hears, in a world without a machine. */
#ifndef MAYFLY_HOST_SIDE_H
#define MAYFLY_HOST_SIDE_H

#include "world.h"

#define EPOCH 0x1234u

/* The frame that the functions below took last. */
extern struct world_frame frame;

uint32_t u32_at(const uint8_t *p);
uint64_t u64_at(const uint8_t *p);
uint32_t out_of(uint32_t id);

void send_u64(uint8_t type, uint32_t stream, uint64_t value);
void send_data(uint32_t id, uint64_t offset, const void *bytes, size_t n);
void send_exec(uint32_t id, uint32_t flags, const char *program);

/* The errno of the next REPLY, -1 without one; everything before it is dropped. */
int next_reply(void);

/* True if there is a frame of the type; everything before it is dropped. */
bool next_of(uint8_t type);

/* A fresh world with a host that has said hello. */
void begin(void);

/* A process that runs. Ends the program if it cannot be started. */
struct world_process *start(uint32_t id, uint32_t flags);

/* The process writes to its standard output. */
void put_out(struct world_process *p, const char *text);

uint32_t in_of(uint32_t id);
void send_connect(uint32_t id, uint16_t port, const char *address);

/* Connects. Returns the errno of the answer. */
int connect_errno(uint32_t id, uint16_t port, const char *address);

/* A connection to the world's server that stands. Returns the server's end; ends the program if there is none. */
int connected(uint32_t id);

/* The errno of the answer to a RELEASE. */
int release(uint32_t id);

/* The errno of the next EXIT, -1 without one; everything before it is dropped. */
int next_exit(void);

/* Takes everything that was sent. Returns how many bytes of the object's channel 2 were among it. */
uint64_t received_of(uint32_t id);

#endif
