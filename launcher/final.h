/* The last steps of a program that becomes another process: by code that is left when nothing else of the program is. */
#ifndef MAYFLY_FINAL_H
#define MAYFLY_FINAL_H

#include <stddef.h>

#include "image.h"

#define THREAD_STACK_BYTES 1024
#define FAILURE_BYTES 64

struct final_mapping {
    uint64_t start, bytes, offset;
    int64_t descriptor; /* -1: none */
    uint64_t protection, flags;
    uint32_t first_run, runs;
};

/* How a thread goes on: by the frame that a signal handler would have returned from. */
struct final_thread {
    uint64_t tid_address, robust_list, robust_bytes, thread_pointer, frame, stack;
    struct rseq_place rseq;
};

struct final_special {
    uint64_t from, by_way_of, to, bytes;
};

struct final_plan {
    struct final_special special[MAX_SPECIAL];
    uint64_t special_count;
    const struct final_mapping *mappings;
    uint64_t mapping_count;
    const struct image_run *runs;
    uint64_t image; /* descriptor; all from this one on are closed */
    const struct image_signal *signals;
    uint64_t signal_count;
    struct final_thread *threads;
    uint64_t thread_count;
    const void *layout; /* for PR_SET_MM_MAP */
    uint64_t layout_bytes;
    char failure[FAILURE_BYTES]; /* is said when it is too late for anything else; the step's letter takes the place of '?' */
    uint64_t failure_bytes, failure_place;
};

/* Its code begins and ends here; it uses nothing but itself and the plan, and can be anywhere. */
extern const char __start_final[], __stop_final[];
_Noreturn void final_run(struct final_plan *plan);

#endif
