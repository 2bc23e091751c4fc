/* Makes copies of a QEMU that stands still. */
#ifndef MAYFLY_PARENT_H
#define MAYFLY_PARENT_H

/*
 * `--parent PID START_TIME`: stops process PID, which has started at START_TIME (ticks, as proc(5) has it), for good: it never runs again, and ends
 * with this program. Its threads wait in system calls, and nobody is connected to it. Says "ready"; then, on the standard input, each line
 *
 *     UID DESCRIPTOR=NUMBER ... join=NUMBER ...
 *
 * is answered by the pid of a copy of it: a process with the same memory, shared until one of them writes, that goes on from where PID stands still.
 * It belongs to user UID without any right, is a child of PID's parent, has joined the control groups whose files are open there as NUMBER, and has as
 * each DESCRIPTOR what is open there as NUMBER. Of what else PID has open, files are shared, and events its own. What goes wrong ends the program;
 * if it had begun a copy, with a line "-PID" for whoever has to wait for its end. Ends with its input, too.
 */
_Noreturn void parent_run(char **arguments);

#endif
