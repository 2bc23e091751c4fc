/* A thread of another process, stopped as a debugger does it, and what it is made to do. x86-64. */
#ifndef MAYFLY_THREAD_H
#define MAYFLY_THREAD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#define MAX_ARGUMENTS 5

struct stopped_thread {
    pid_t pid;
    struct user_regs_struct registers; /* as it goes on with */
    uint64_t signals;                  /* that it has blocked */
    uint64_t instruction;              /* address of a syscall instruction: thread_instruction of its process */
};

/* Whether a process is there and has started at that time (ticks, as proc(5) has it). */
bool process_is(pid_t pid, uint64_t start_time);

/* Whether a thread of a process has ended, or is about to. */
bool thread_is_dead(pid_t pid, pid_t thread);

/* Waits for the next stop of a thread. Returns its status as waitpid has it, or -ESRCH when it has ended. */
int thread_next_stop(pid_t pid);

/*
 * Ends a process that is stopped, and its copy, which may be there although nobody knows of it yet (0): until nothing of them is left but what
 * their own parent has to be told. Returns the copy, or 0.
 */
pid_t thread_end_all(pid_t pid, pid_t copy);

/* Forgets what was told of a process that has been let go on. */
void thread_forget(pid_t pid);

/* Whether one that is stopped has ended, as by SIGKILL. SIGCHLD tells that there is something to look at. */
bool thread_has_ended(pid_t pid);

/* The address of a syscall instruction: every process has one in what the kernel maps into it. Returns 0 without one. */
uint64_t thread_instruction(pid_t pid);

/* Stops the first thread of a process, or another by its id, each time the same. Returns 0 or -errno; then it runs as before. */
int thread_stop(struct stopped_thread *thread, pid_t pid);

/* The same in two steps, so that several stop at once. */
int thread_begin_stop(struct stopped_thread *thread, pid_t pid);
int thread_end_stop(struct stopped_thread *thread);

/* Has it make a system call. Returns what that returned; -ESRCH if it has gone meanwhile. */
long thread_call(struct stopped_thread *thread, long number, uint64_t first, uint64_t second, uint64_t third);

long thread_call_with(struct stopped_thread *thread, long number, const uint64_t arguments[MAX_ARGUMENTS]);

/* Lets it go on as if nothing had been. */
void thread_go_on(struct stopped_thread *thread);

#endif
