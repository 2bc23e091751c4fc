/* What parent.c and copy.c share: a process that stands still, and how it and its copies are told what to do. */
#ifndef MAYFLY_COPY_H
#define MAYFLY_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "thread.h"

#define MAX_THREADS 64
#define MAX_EVENTS 200
#define EMPTY_EPOLL (-1)
#define MAX_CONNECTIONS 64
#define MAX_PASSED 16
#define MAX_SENT 253 /* descriptors that one message can have */
#define MAX_PLACES (MAX_SENT - MAX_PASSED)
#define MAX_EXTENDED_BYTES 16384
#define SYS_PIDFD_GETFD 438 /* Linux 5.6 */
#define SYS_PIDFD_OPEN 434  /* 5.3 */
#define EXTENDED_STATE 0x202 /* NT_X86_XSTATE */

struct rseq_place {
    uint64_t address;
    uint32_t bytes, signature, flags, pad;
};

/* One of its threads, with what the kernel knows of it beside its registers. */
struct original {
    struct stopped_thread thread;
    uint64_t tid_address, robust_list, robust_bytes;
    struct rseq_place rseq;
    size_t extended_bytes;
    uint8_t extended[MAX_EXTENDED_BYTES];
};

/* What a copy gets: as which descriptor, or to join a control group by. */
struct passed {
    int here, there; /* there -1: a control group's file */
};

/* An event of the parent, in the place of which a copy gets one of its own. */
struct event {
    int descriptor, flags; /* EMPTY_EPOLL: it is none, but an epoll that watches nothing */
    unsigned count;        /* how often it has happened and not been taken */
};

/* A number that a copy gets a descriptor of its own as. */
struct place {
    int descriptor;
    enum { GAP, EVENT, PASSED } kind; /* a gap is closed again */
    struct event event;
};

struct parent {
    pid_t pid;
    uint64_t instruction;
    struct original threads[MAX_THREADS]; /* the process' first thread is the first */
    size_t thread_count;
    struct event events[MAX_EVENTS];
    size_t event_count;
    int connections[MAX_CONNECTIONS]; /* descriptors that somebody else is connected to */
    size_t connection_count;
    struct place places[MAX_PLACES]; /* by number: all that are free */
    size_t place_count;
    int channel, channel_there; /* descriptors go through it: our end, and that of the process */
    uint64_t scratch;           /* an address of free memory; some of it before, some behind */
    int namespace;              /* its user namespace */
    bool has_namespace;         /* which is not ours */
    gid_t gid;
    uint64_t first_uid, uids;   /* users that its copies know */
};

/* Frees the places of what copies get of their own, the same in all of them. */
void copy_lay_out(struct parent *parent, const struct passed *passed, size_t count);

/* Begins a copy, which has one thread and stands still. Returns its pid. */
pid_t copy_begin(struct parent *parent);

/* Makes a copy, which goes on at once. Returns its pid. `itself`: there is no copy, the parent goes on as one. */
pid_t copy_make(struct parent *parent, uint64_t uid, const struct passed *passed, size_t count, bool itself);

/* From now on giving up ends this process, which is being stopped. */
void give_up_with(pid_t pid);

/* From now on giving up lets go on what has been stopped of a process. */
void give_up_letting_go(struct parent *parent);

/* Ends the program, what is stopped, and the copy that is being made, of which it says so: as give_up_gone if that is what errno says. */
__attribute__((format(printf, 1, 2))) _Noreturn void give_up(const char *format, ...);

/* The same, with EXIT_NOT_FOUND: what was to be copied, or the copy, has been ended by somebody else. */
_Noreturn void give_up_gone(pid_t pid);

/* A system call of a stopped thread that has to work. */
long call(struct stopped_thread *thread, const char *what, long number, const uint64_t arguments[MAX_ARGUMENTS]);
#define CALL(thread, what, number, ...) call(thread, what, number, (uint64_t[MAX_ARGUMENTS]){__VA_ARGS__})

void write_there(pid_t pid, uint64_t address, const void *bytes, size_t count);
void read_there(pid_t pid, uint64_t address, void *bytes, size_t count);

#endif
