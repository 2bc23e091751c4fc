/* Whose turn it is: places of the connection table, each at most once, first come first served. */
#ifndef MAYFLY_TURNS_H
#define MAYFLY_TURNS_H

/* Puts a place behind the others, unless it is among them. */
void turns_add(unsigned place);

unsigned turns_count(void);

/* Takes the first one; there has to be one. */
unsigned turns_take(void);

void turns_clear(void);

#endif
