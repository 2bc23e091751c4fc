/* A thread of another process, stopped as a debugger does it, and what it is made to do. x86-64. */
#ifndef MAYFLY_THREAD_H
#define MAYFLY_THREAD_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

struct stopped_thread {
    pid_t pid;
    struct user_regs_struct registers; /* as it goes on with */
    uint64_t signals;                  /* that it has blocked */
    uint64_t instruction;              /* address of a syscall instruction; 0 until it has been looked for */
};

/* Stops the first thread of a process, each time of the same. Returns 0 or -errno; then it runs as before. */
int thread_stop(struct stopped_thread *thread, pid_t pid);

/* Has it make a system call. Returns what that returned; -ESRCH if it has gone meanwhile. */
long thread_call(struct stopped_thread *thread, long number, uint64_t first, uint64_t second, uint64_t third);

/* Lets it go on as if nothing had been. */
void thread_go_on(struct stopped_thread *thread);

#endif
