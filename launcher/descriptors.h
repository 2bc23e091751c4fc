/* What a process has open that copies of it must not share, or cannot have. */
#ifndef MAYFLY_DESCRIPTORS_H
#define MAYFLY_DESCRIPTORS_H

#include "copy.h"

/* Opens the process whose memory and descriptors copies get. */
void descriptors_of(struct parent *parent, pid_t pid);

/* Finds events, which a process and its copy would share and have to be made anew, and connections; gives up where there is what no two can have. */
void descriptors_list(struct parent *parent);

/* What is to be known of an event or epoll to make another one. Returns whether it can be made: an epoll that watches something cannot. */
bool descriptors_look_at_event(const struct parent *parent, struct event *event, bool is_epoll);

/* Those that are connected hear that the other end is closed: it is the process' own, which goes on. */
void descriptors_close_connections(struct parent *parent);

/* Makes a pair of sockets, one end of it for us: descriptors of copies go through it. */
void descriptors_open_channel(struct parent *parent);

#endif
