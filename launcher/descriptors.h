/* What a process has open that copies of it must not share, or cannot have. */
#ifndef MAYFLY_DESCRIPTORS_H
#define MAYFLY_DESCRIPTORS_H

#include "copy.h"

/* Opens the process whose memory and descriptors copies get. */
void descriptors_of(struct parent *parent, pid_t pid);

/*
 * Finds events, which a process and its copy would share and have to be made anew, and connections; gives up where there is what no two can have. Of events that
 * it has found before it takes what was known.
 */
void descriptors_list(struct parent *parent);

/* Opens the events of a process that runs, and tells when it stands still how often each has happened: only of those that have is more to be read than that. */
void descriptors_watch_events(const struct parent *parent);
void descriptors_count_events(struct parent *parent);

/* Those that are connected hear that the other end is closed: it is the process' own, which goes on. */
void descriptors_close_connections(struct parent *parent);

/* Makes a pair of sockets, one end of it for us: descriptors of copies go through it. */
void descriptors_open_channel(struct parent *parent);

#endif
