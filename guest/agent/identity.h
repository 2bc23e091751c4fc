/* What makes a clone another machine than its template. */
#ifndef MAYFLY_IDENTITY_H
#define MAYFLY_IDENTITY_H

#include <stdint.h>

#include "protocol.h"

struct identity {
    uint64_t realtime_ns;
    uint8_t entropy[IDENTITY_ENTROPY_BYTES], machine_id[IDENTITY_MACHINE_ID_BYTES], mac[IDENTITY_MAC_BYTES];
    char hostname[MAX_HOSTNAME_BYTES + 1];
};

/* Entropy, clock, hostname, machine-id, MAC, in this order. Returns 0 or -errno of the first that failed. */
int identity_apply(const struct identity *identity);

/* Files of the agent's that a container has mounted over its own; the last one's path is NULL. */
struct identity_file {
    const char *path, *target;
};
extern const struct identity_file identity_files[];

/* Writes all of them, for a container that is to be. Returns 0 or -errno. */
int identity_write_files(void);

/* Before a template is saved: makes the next identity cheap. */
void identity_prepare(void);

int clock_set_realtime(uint64_t realtime_ns);

#endif
