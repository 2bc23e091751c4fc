#ifndef MAYFLY_MODULES_H
#define MAYFLY_MODULES_H

/*
 * Loads the modules that a list names, one a line, in its order; a relative path is one below /lib/modules. `#` starts
 * a comment. What cannot be loaded is said on the console, unless the line starts with `?`.
 */
void modules_load(const char *list);

#endif
