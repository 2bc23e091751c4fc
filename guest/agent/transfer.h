/* File transfers: objects that carry a file's contents. */
#ifndef MAYFLY_TRANSFER_H
#define MAYFLY_TRANSFER_H

#include "object.h"
#include "wire.h"

/* Start one from the payload of its request. Return 0, or -errno and the object may be freed. */
int transfer_read(struct object *o, struct reader *payload, struct writer *result);
int transfer_write(struct object *o, struct reader *payload);

/* Reads on while the window has room. Returns true if there is more to do at once. */
bool transfer_pump(struct object *o);

/* Bytes and end of a file that the host writes. */
void transfer_data(struct object *o, uint64_t offset, const uint8_t *bytes, size_t n);
void transfer_finish(struct object *o);

/* Ends every transfer that is not over with an error, and closes its descriptors. */
void transfers_abandon(int error);

/* Closes everything; a file that was not finished leaves nothing behind. */
void transfer_release(struct object *o);

#endif
