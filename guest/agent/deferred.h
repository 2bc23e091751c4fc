/*
 * The one request that takes long. It runs in a child, or waits for something, while the agent goes on moving bytes;
 * further requests are not read until it is answered, so that they are carried out in order.
 */
#ifndef MAYFLY_DEFERRED_H
#define MAYFLY_DEFERRED_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Returned by a request that will be answered later. */
#define DEFERRED 1

/* Work for the child: returns 0 or -errno; *result goes into the answer of requests that have one. */
typedef int deferred_work(void *argument, volatile uint64_t *result);

/* What the agent does when a child has ended (`error` is 0 or -errno) or a wait is over. Returns what the request is
 * answered with, or DEFERRED if it has begun to wait for something else. */
typedef int deferred_next(uint32_t stream, int error);

/* Prepares what the child shares with the agent. Called once; returns 0 or -errno. */
int deferred_init(void);

/* Starts the work. Returns DEFERRED or -errno. `with_result`: the answer carries the u64 result. */
int deferred_start(uint32_t stream, deferred_work *work, void *argument, bool with_result);

/* The same, and then `next`. */
int deferred_start_then(uint32_t stream, deferred_work *work, void *argument, deferred_next *next);

/* Waits until `ready` says so, asked after each event; at most `limit_ms`, then `error` is -ETIMEDOUT. `poll_ms` above
 * 0: asked that often as well, for what no event tells of. `next` NULL: the request is answered. Returns DEFERRED. */
struct deferred_wait {
    bool (*ready)(void);
    int limit_ms, poll_ms;
    deferred_next *next;
};
int deferred_wait(uint32_t stream, const struct deferred_wait *wait);

bool deferred_busy(void);

/* Milliseconds until deferred_check has to be called; -1: no need. */
int deferred_timeout_ms(void);
void deferred_check(void);

/* A child that is not a process of the host's has ended. */
void deferred_reaped(pid_t pid, int status);

#endif
