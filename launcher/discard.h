/* Gives memory of a QEMU back to the host. */
#ifndef MAYFLY_DISCARD_H
#define MAYFLY_DISCARD_H

/*
 * `--discard PID START_TIME ADDRESS BYTES FILE`: FILE is mapped privately, from its begin, at ADDRESS in process PID, which has started at START_TIME
 * (ticks, as proc(5) has it). Then, on the standard input, a line "look" is answered by the number of bytes that the process has copied of the file and
 * that equal it, and "discard" by the number of those bytes that it has no copy of any more: what is read there is the same before and after.
 * Between a "discard" and its answer nothing may write there. Ends with the input.
 */
_Noreturn void discard_run(char **arguments);

#endif
