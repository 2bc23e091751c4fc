/* Makes copies of a QEMU that stands still. */
#ifndef MAYFLY_PARENT_H
#define MAYFLY_PARENT_H

/*
 * `--parent PID START_TIME FIRST_UID UIDS`: stops process PID, which has started at START_TIME (ticks, as proc(5) has it), for good: it never runs
 * again, and ends with this program. Nobody is connected to it. Says "ready"; then, on the standard input, each line
 *
 *     [last] UID DESCRIPTOR=NUMBER ... join=NUMBER ...
 *
 * is answered by the pid of a copy of it: a process with the same memory, shared until one of them writes, that goes on from where PID stands still.
 * It belongs to user UID without any right, is a child of PID's parent, has joined the control groups whose files are open there as NUMBER, and has as
 * each DESCRIPTOR what is open there as NUMBER. Of what else PID has open, files are shared, and events its own. What goes wrong ends the program;
 * if it had begun a copy, with a line "-PID" for whoever has to wait for its end. Ends with its input, too. UID is one of those from FIRST_UID on, of
 * which copies know all, so that copies of copies can be any of them.
 *
 *     image NUMBER NUMBER|- DESCRIPTOR ...
 *
 * is answered by "image" when an image of it has been written (image.h): into what is open there as the first NUMBER, pages of the guest's memory into the
 * second, which is a copy of that, or with all others into the first ("-"); for who has each DESCRIPTOR open.
 */
_Noreturn void parent_run(char **arguments);

/*
 * `--fork FIRST_UID UIDS`: the same with a process that goes on. A first line says which, "PID START_TIME", and is answered by "ready". At the second,
 * whatever that says, PID is stopped, which is answered by "stopped", copied and let go on: then the answer is the pid of that copy, which stands still as a
 * parent does. Then lines as above; "last" makes that copy itself one that goes on, and ends the program. Connections of PID are closed in copies.
 */
_Noreturn void fork_run(char **arguments);

#endif
