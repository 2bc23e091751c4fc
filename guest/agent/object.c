#include "object.h"

#include <errno.h>
#include <string.h>

uint64_t objects_used;
struct object objects[MAX_OBJECTS];

struct object *object_find(uint32_t id)
{
    uint64_t used = objects_used;
    for (struct object *o; (o = object_next(&used));)
        if (o->id == id)
            return o;
    return NULL;
}

struct object *object_make(uint32_t id, uint8_t kind, int *error)
{
    if (id == 0 || id > MAX_OBJECT_ID) {
        *error = -EINVAL;
        return NULL;
    }
    if (object_find(id)) {
        *error = -EEXIST;
        return NULL;
    }
    if (~objects_used == 0) {
        *error = -EAGAIN;
        return NULL;
    }
    unsigned slot = (unsigned)__builtin_ctzll(~objects_used); /* the lowest: its pages were touched before */
    struct object *o = &objects[slot];
    memset(o, 0, sizeof *o);
    o->id = id;
    o->kind = kind;
    o->cgroup = o->file_fd = o->parent_fd = -1;
    in_reset(&o->in, slot);
    out_reset(&o->out[0], slot, CHANNEL_OUTPUT);
    out_reset(&o->out[1], slot, CHANNEL_ERROR);
    objects_used |= 1ull << slot;
    return o;
}

void object_free(struct object *o)
{
    in_drop(&o->in);
    out_drop(&o->out[0]);
    out_drop(&o->out[1]);
    o->id = 0;
    objects_used &= ~(1ull << object_slot(o));
}
