/* The container's first process, PID 1 of its PID namespace: the host's, or an init of the agent's own. */
#ifndef MAYFLY_FIRST_H
#define MAYFLY_FIRST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Whether an EXEC of these flags may start; starts the agent's init where one is needed. Returns 0, -EINVAL, -EEXIST
 * (there is a first process), -ESRCH (it has ended), or why init cannot be started. */
int first_admit(uint32_t exec_flags);

/* The host's process of that pid is the first one. */
void first_started(pid_t pid);

/* A child has ended. Returns true if it was the agent's init. */
bool first_reaped(pid_t pid);

/* The PID namespace for setns(2), or -1. */
int first_namespace(void);

/* 0: none runs. */
pid_t first_pid(void);

/* The next container begins without one. */
void first_forget(void);

#endif
