/* Processes of the workload, from EXEC to RELEASE. */
#ifndef MAYFLY_PROCESS_H
#define MAYFLY_PROCESS_H

#include "object.h"
#include "wire.h"

struct rusage;

/* Starts what the payload of an EXEC describes. Returns its pid, or -errno and the object may be freed. */
int process_exec(struct object *o, uint8_t *payload, size_t length);

/* `tree`: every process of its cgroup. Returns 0 or -errno. */
int process_signal(struct object *o, uint32_t signal, bool tree);
int process_resize(struct object *o, uint16_t rows, uint16_t columns);

/* Moves bytes between the process and its rings. Returns true if there is more to do at once. */
bool process_pump(struct object *o);

/* Collects every child that has ended, ours and orphans. */
void process_reap_all(void);

/* Kills the tree of a process that still runs, and closes everything. */
void process_release(struct object *o);

#endif
