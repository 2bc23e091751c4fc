/*
 * The program's third life: it looks at the workload from outside of its container and prints what it finds in binary, since names of
 * processes and files are whatever the workload wants. Layouts are in docs/AGENT-PROTOCOL.md.
 */
#ifndef MAYFLY_SURVEY_H
#define MAYFLY_SURVEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* First words of what is printed, and the word after the last record. */
#define SURVEY_PROCESSES_MAGIC 0x5350464du /* "MFPS" */
#define SURVEY_CHANGES_MAGIC 0x4843464du   /* "MFCH" */

/* Layers of the container's root, as the agent's descriptors of them are named. */
#define SURVEY_UPPER "/run/root/over/upper"
#define SURVEY_LOWER "/run/root/lower"

enum {
    CHANGE_DIRECTORY = 1,      /* it is one now */
    CHANGE_DELETED = 2,        /* it is in the image and not any more */
    CHANGE_IN_IMAGE = 4,       /* the image has something there */
    CHANGE_DIRECTORY_THERE = 8,/* a directory */
    CHANGE_SAME_OWNER = 16,    /* type, mode, user and group are the image's */
    CHANGE_SAME_TIME = 32,
    CHANGE_CUT = 64,           /* it is too deep to be looked into */
};

/* Processes of the workload, the caller left out. Returns the exit code of the program. */
int survey_processes(void);

/* What the upper directory of an overlay changes of the lower one. Returns the exit code of the program. */
int survey_changes(const char *upper, const char *lower);

/* Runs the survey of that name. Returns the exit code, or -1 if there is none of it. */
int survey_run(const char *name);

#endif
