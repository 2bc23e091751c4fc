/* A test program is a list of functions; each counts once. The last line is "N passed, N failed, N skipped". */
#ifndef MAYFLY_TEST_H
#define MAYFLY_TEST_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static int tests_passed, tests_failed, tests_skipped;
static bool test_ok;

#define CHECK(condition)                                                                        \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            test_ok = false;                                                                    \
            fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, __func__, #condition); \
        }                                                                                       \
    } while (0)

#define RUN(test)                      \
    do {                               \
        test_ok = true;                \
        test();                        \
        if (test_ok)                   \
            tests_passed++;            \
        else                           \
            tests_failed++;            \
    } while (0)

#define SKIP(test, why)                                             \
    do {                                                            \
        tests_skipped++;                                            \
        fprintf(stderr, "skipped %s: %s\n", #test, why);            \
    } while (0)

static inline int test_summary(const char *program)
{
    printf("%s: %d passed, %d failed, %d skipped\n", program, tests_passed, tests_failed, tests_skipped);
    return tests_failed != 0;
}

#endif
