/*
 * A session without a machine: the port is a pair of buffers, processes are pipes that the test holds, files lie in a
 * directory of their own. Linked with --wrap=kill,wait4,fork. What the agent sends is checked against the protocol.
 */
#ifndef MAYFLY_WORLD_H
#define MAYFLY_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "protocol.h"

#define WORLD_PROCESSES 64

struct world_process {
    pid_t pid;    /* 0: the slot is free */
    int input;    /* the process' ends; -1 if there is none */
    int outputs[2];
    int status;   /* of wait(2), once ended */
    bool ended;
};

extern struct world_process world_processes[WORLD_PROCESSES];

/* Once per program, and once per case: no object, no process, no host. */
void world_init(void);
void world_reset(void);

/* Bytes for the agent to read. */
void world_receive(const void *bytes, size_t n);

/* A frame for the agent to read. */
void world_frame(uint8_t type, uint32_t epoch, uint32_t stream, const void *payload, size_t n);

/* Preamble and hello, with `count` pairs of u32 stream, u64 offset. */
void world_hello(uint32_t epoch, const void *offsets, uint32_t count);

/* How many bytes the port takes before it says EAGAIN, and at most at once. */
void world_accept(size_t total, size_t at_once);

/* The agent's next reads of the port, so many, find nothing yet. */
void world_late(unsigned reads);

/* Lets the agent work until nothing moves. */
void world_run(void);

/* Ends a process: it closes its ends and is reaped. */
void world_exit(struct world_process *process, int status);

/* What the agent has sent and the test has not taken yet. */
const uint8_t *world_sent(size_t *n);
void world_take(size_t n);

/* Takes the next whole frame. Returns its type, 0 if there is none. A preamble is skipped. */
struct world_frame {
    uint8_t type;
    uint32_t epoch, stream, length;
    const uint8_t *payload; /* until the next call */
};
uint8_t world_next(struct world_frame *frame);

/* Objects that are in use, and descriptors that the program has open. */
int world_objects(void);
int world_descriptors(void);

#endif
