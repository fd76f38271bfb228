/* Counts and sums distinct rows: each row is a group's number and two hashes, of which the first identifies the row.

   Rows are stored in columns until all have been added, then processed group by group, so that the hash table of one
   group fits in a core's cache. The library shares no code with the one that removes duplicate readings from tables,
   because it is used to verify those tables. It is called through ctypes, so other threads run at the same time. */
#include <stdint.h>
#include <stdlib.h>

typedef int64_t i64;
typedef uint32_t u32;
typedef uint64_t u64;
typedef unsigned __int128 u128;

#ifndef STEDI_SOURCE
#define STEDI_SOURCE 0
#endif
u64 stedi_source(void) { return STEDI_SOURCE; }

/* Stores rows from index `at` on. A row whose bit in `counted` is not set is counted only in `landed`; without
   `counted`, all rows are stored. Returns the index for the next row; -1 if a group number is not below `groups`. */
i64 stedi_keep(const i64 *group, const u64 *one, const u64 *other, const uint8_t *counted, i64 offset, i64 rows,
               i64 groups, i64 at, u32 *kept, u64 *ones, u64 *others, i64 *landed) {
    for (i64 row = 0; row < rows; row++) {
        if ((u64)group[row] >= (u64)groups) return -1;
        landed[group[row]]++;
        i64 bit = offset + row;
        if (counted && !(counted[bit >> 3] >> (bit & 7) & 1)) continue;
        kept[at] = (u32)group[row];
        ones[at] = one[row];
        others[at++] = other[row];
    }
    return at;
}

/* Sets the six numbers of each group in `sums`: its stored rows, its distinct rows, and the sum of each hash of the
   distinct rows, as a low and a high half. `odd` is a random odd number; without it, someone could craft rows that all
   hash to one slot. Returns 0; -1 if memory is exhausted. */
i64 stedi_sum(const u32 *kept, const u64 *ones, const u64 *others, i64 rows, i64 groups, u64 odd, u64 *sums) {
    i64 result = -1, most = 0;
    i64 *ends = calloc((size_t)groups + 1, sizeof *ends);
    u32 *places = malloc((size_t)(rows + 1) * sizeof *places);
    if (!ends || !places || rows > UINT32_MAX) goto done;
    for (i64 row = 0; row < rows; row++) ends[kept[row] + 1]++;
    for (i64 group = 0; group < groups; group++) {
        if (ends[group + 1] > most) most = ends[group + 1];
        ends[group + 1] += ends[group];
    }
    u64 room = 2;
    while (room < 2 * (u64)most) room *= 2;
    u64 *seen = malloc(room * sizeof *seen);
    if (!seen) goto done;
    for (i64 row = 0; row < rows; row++) places[ends[kept[row]]++] = (u32)row;
    for (i64 group = 0, begin = 0; group < groups; begin = ends[group++]) {
        u64 slots = 2, distinct = 0, zero = 0;
        int shift = 63;
        u128 one = 0, other = 0;
        for (; slots < 2 * (u64)(ends[group] - begin); shift--) slots *= 2;
        for (u64 slot = 0; slot < slots; slot++) seen[slot] = 0;
        for (i64 place = begin; place < ends[group]; place++) {
            u64 hash = ones[places[place]], slot = hash * odd >> shift;
            if (hash) {
                while (seen[slot] && seen[slot] != hash) slot = (slot + 1) & (slots - 1);
                if (seen[slot]) continue;
                seen[slot] = hash;
            } else if (zero++) continue;                /* zero marks a free slot */
            distinct++;
            one += hash;
            other += others[places[place]];
        }
        u64 *out = sums + 6 * group;
        out[0] = (u64)(ends[group] - begin);
        out[1] = distinct;
        out[2] = (u64)one, out[3] = (u64)(one >> 64);
        out[4] = (u64)other, out[5] = (u64)(other >> 64);
    }
    free(seen);
    result = 0;
done:
    free(ends);
    free(places);
    return result;
}
