#include "turns.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "protocol.h"

static uint16_t ring[MAX_CONNECTIONS];
static bool waits[MAX_CONNECTIONS];
static unsigned first, count;

void turns_add(unsigned place)
{
    if (waits[place])
        return;
    waits[place] = true;
    ring[(first + count++) % MAX_CONNECTIONS] = (uint16_t)place;
}

unsigned turns_count(void) { return count; }

unsigned turns_take(void)
{
    unsigned place = ring[first];
    first = --count ? (first + 1) % MAX_CONNECTIONS : 0; /* little traffic touches few pages */
    waits[place] = false;
    return place;
}

void turns_clear(void)
{
    while (count)
        turns_take();
    if (first) /* a page that is not written is not copied either */
        first = 0;
}
