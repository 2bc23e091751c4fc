/* The table of objects: processes and file transfers that the host has named. */
#ifndef MAYFLY_OBJECT_H
#define MAYFLY_OBJECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "stream.h"

#define NAME_BYTES 256

struct object {
    uint32_t id; /* 0: the slot is free */
    uint8_t kind;
    uint32_t flags; /* EXEC_* or WRITE_* */
    bool exited;    /* the process was reaped, or the transfer is over */
    bool exit_sent;
    int32_t code, signal, error;
    uint64_t user_us, system_us, max_rss_bytes;
    struct in_stream in;
    struct out_stream out[2]; /* channels 2 and 3 */

    pid_t pid; /* 0 once reaped */
    int cgroup;

    uint64_t file_offset, file_left;
    int file_fd, parent_fd;
    char name[NAME_BYTES], temporary[32];
};

/* Bit n: slot n is in use. */
extern uint64_t objects_used;
extern struct object objects[MAX_OBJECTS];

/* The object of that id, or NULL. */
struct object *object_find(uint32_t id);

/* A fresh object, or NULL with *error = -EEXIST (id in use), -EINVAL (id out of range) or -EAGAIN (no slot). */
struct object *object_make(uint32_t id, uint8_t kind, int *error);

/* Frees the slot. Descriptors must be closed already. */
void object_free(struct object *o);

static inline unsigned object_slot(const struct object *o) { return (unsigned)(o - objects); }

/* Nothing more will come on its output channels, and how it ended is known. */
static inline bool object_ended(const struct object *o) { return o->exited && o->out[0].ended && o->out[1].ended; }

/* Takes the next used slot out of a copy of objects_used. */
static inline struct object *object_next(uint64_t *used)
{
    if (!*used)
        return NULL;
    unsigned slot = (unsigned)__builtin_ctzll(*used);
    *used &= *used - 1;
    return &objects[slot];
}

#endif
