/* The requests of the protocol: parse, check, carry out. */
#ifndef MAYFLY_REQUESTS_H
#define MAYFLY_REQUESTS_H

#include <stdbool.h>

#include "frame.h"
#include "wire.h"

/* Largest result of any request. */
#define MAX_RESULT_BYTES 16384

/* Carries one out. Returns 0 with the result in `result`, -errno, or DEFERRED. */
int request_run(const struct frame *frame, struct writer *result);

/* True for a moment after a freeze: the VM is about to be stopped, and what it is told when it goes on is urgent. */
bool request_stop_is_near(void);

/* The VM has gone on, or is not stopped: others have their turns again. */
void request_calm(void);

#endif
