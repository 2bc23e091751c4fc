/* The program's other life: PID 1 of a container. */
#ifndef MAYFLY_INIT_H
#define MAYFLY_INIT_H

/* argv[0] of it. */
#define INIT_NAME "mayfly-init"

/* Reaps what is left to it. With the pid of a child (in decimal) it passes signals on to it and ends as it does: with
 * its code, or 128 + the signal that ended it, like docker's init. Without one it never ends. All signals are blocked. */
_Noreturn void init_run(const char *child);

#endif
