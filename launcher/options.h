/* What the command line asks for. */
#ifndef MAYFLY_OPTIONS_H
#define MAYFLY_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#define EXIT_CANNOT_RUN 126
#define EXIT_NOT_FOUND 127
#define MAX_CGROUPS 8
#define MAX_LIMITS 8
#define MAX_VARIABLES 64
#define MAX_GROUPS 32

struct limit {
    int resource;
    struct rlimit values;
    const char *text;
};

struct plan {
    const char *cgroups[MAX_CGROUPS];
    size_t cgroup_count;
    struct limit limits[MAX_LIMITS];
    size_t limit_count;
    char *variables[MAX_VARIABLES];
    size_t variable_count;
    gid_t groups[MAX_GROUPS];
    size_t group_count;
    const char *directory;
    const char *oom_score_adj;
    int namespaces, nice;
    long uid, gid; /* -1: stays */
    bool no_huge_pages, merge_memory, clear_env, has_nice;
    int image, image_base; /* descriptors of what to go on from instead of running a program, and of a file that it has mapped; -1: none */
    char **program;
};

/* Fills in the plan. Ends the program with EXIT_CANNOT_RUN and one line if the command line makes no sense. */
void options_parse(struct plan *plan, int argc, char **argv);

/* A number of the command line, as C writes them; or the program ends, and names what it was to be. */
uint64_t number_of(const char *option, const char *what, const char *text);

/* For a program that keeps another one stopped: who ends meanwhile would leave that as it is, and it would not survive. */
void protect_from_signals(void);

/* Prints one line on the standard error and ends the program. */
__attribute__((format(printf, 2, 3))) _Noreturn void fail(int status, const char *format, ...);

#endif
