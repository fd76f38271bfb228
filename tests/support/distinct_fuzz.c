/* Sorts random rows by `distinct.c` as `distinct.py` does, and compares the result with `qsort`.

   usage: distinct_fuzz SEED TABLES
   All memory has exactly its size, so that AddressSanitizer sees an access beyond it. Some allocations fail. Prints how
   many tables were sorted. */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t held, failing;                           /* allocations of the library; the one that fails, from 1 on */
static void *counted(void *p) {
    if (failing && !--failing) { free(p); return NULL; }
    held += p != NULL;
    return p;
}
static void returned(void *p) { held -= p != NULL; free(p); }
#define malloc(size) counted((malloc)(size))
#define calloc(count, size) counted((calloc)(count, size))
#define free(p) returned(p)
#include "distinct.c"
#undef malloc
#undef calloc
#undef free

const char *__asan_default_options(void) { return "detect_leaks=0"; }  /* `held` is checked instead */

static u64 state;
static u32 dice(u32 sides) {                            /* xorshift64* */
    state ^= state >> 12; state ^= state << 25; state ^= state >> 27;
    return (u32)(((state * 0x2545F4914F6CDD1DULL) >> 32) % sides);
}

static void *sized(i64 size) { void *p = malloc(size ? (size_t)size : 1); assert(p); return p; }

static i64 hostile(void) {
    static const i64 values[] = {INT64_MIN, INT64_MIN + 1, -1, INT32_MIN, INT32_MAX, 1LL << 32, INT64_MAX - 1, INT64_MAX};
    return dice(2) ? values[dice(8)] : (i64)((u64)dice(UINT32_MAX) << 32 | dice(UINT32_MAX));
}

static i32 width;
static int by_columns(const void *one, const void *other) {
    const i64 *a = one, *b = other;
    for (i32 column = 0; column < width; column++)
        if (a[column] != b[column]) return a[column] < b[column] ? -1 : 1;
    return 0;
}

/* Asserts that a bucket's rows become its distinct rows in order, or that the library says why not. */
static i64 check(const i64 *rows, i64 count, i64 first, i64 persons) {
    i64 size = count * width * 8, *cells = sized(size), *sorted = sized(size), distinct = 0, strange = 0;
    memcpy(cells, rows, (size_t)size);
    memcpy(sorted, rows, (size_t)size);
    qsort(sorted, (size_t)count, (size_t)width * 8, by_columns);
    for (i64 row = 0; row < count; row++) strange += (u64)rows[row * width] - (u64)first >= (u64)persons;
    failing = dice(20) ? 0 : 1 + dice(3);
    int may_fail = failing != 0;
    i64 found = stedi_distinct(cells, count, width, first, persons);
    assert(!held);
    assert(may_fail ? found >= -2 : found == -2 ? strange : !strange && found >= 0);
    for (i64 row = 0; row < count && found >= 0; row++) {
        const i64 *one = sorted + row * width;
        if (row && !by_columns(one - width, one)) continue;
        assert(distinct < found && ((i32 *)cells)[distinct] == one[0] - first);
        for (i32 column = 1; column < width; column++) assert(cells[column * count + distinct] == one[column]);
        distinct++;
    }
    assert(found < 0 || found == distinct);
    free(cells); free(sorted);
    return found >= 0;
}

enum { WIDEST = 6 };

int main(int words, char **word) {
    assert(words == 3);
    state = strtoull(word[1], 0, 10) * 2 + 1;
    i64 taken = 0;
    for (i64 number = strtoll(word[2], 0, 10); number; number--) {
        i64 people = 1 + dice(dice(3) ? 60 : 3), share = people / (1 + dice(9)), room = 1 + dice(9);
        i64 rows = dice(9) ? dice(120) : dice(3000), full = 0, at = 0;
        i32 shift = 0, strange = !dice(9), kinds[WIDEST], runs = (i32)dice(3);
        while (share >> (shift + 1)) shift++;
        i64 buckets = ((people - 1) >> shift) + 1;
        width = 1 + (i32)dice(WIDEST);
        i64 *columns[WIDEST];
        for (i32 column = 0; column < width; column++) {
            columns[column] = sized(rows * 8);
            kinds[column] = (i32)dice(4);
            for (i64 row = 0; row < rows; row++) {
                i64 *value = columns[column] + row;
                if (!column) *value = strange && !dice(99) ? dice(2) ? hostile() : people + dice(9) : dice((u32)people);
                else if (row && runs && dice(6)) *value = (i64)((u64)value[-1] + (runs == 2 && column == 1));
                else *value = kinds[column] ? (i64)dice(kinds[column] == 1 ? 2 : 50) - 1 : hostile();
            }
        }
        i64 *cells = sized(buckets * room * width * 8), *counts = sized(buckets * 8), *sizes = sized(buckets * 8);
        i64 **kept = sized(buckets * (i64)sizeof *kept);
        for (i64 bucket = 0; bucket < buckets; bucket++) {
            counts[bucket] = sizes[bucket] = 0;
            kept[bucket] = sized(rows * width * 8);
        }
        for (int flushed = 1; flushed; ) {              /* a full bucket's rows are stored, as in a file */
            at = stedi_divide((const i64 *const *)columns, width, at, rows, shift, buckets, room, cells, counts, &full);
            flushed = at < rows && full >= 0;
            for (i64 bucket = 0; bucket < buckets; bucket++) {
                if (flushed && bucket != full) continue;
                assert(counts[bucket] <= room && (!flushed || counts[bucket] == room));
                i64 size = counts[bucket] * width * 8;
                memcpy(kept[bucket] + sizes[bucket] * width, cells + bucket * room * width, (size_t)size);
                sizes[bucket] += counts[bucket];
                counts[bucket] = 0;
            }
        }
        assert(at == rows || (u64)columns[0][at] >> shift >= (u64)buckets);
        i64 all = 0, good = at == rows;
        for (i64 bucket = 0; bucket < buckets; bucket++) {
            for (i64 row = 0; row < sizes[bucket]; row++) assert(kept[bucket][row * width] >> shift == bucket);
            all += sizes[bucket];
            good &= check(kept[bucket], sizes[bucket], bucket << shift, 1LL << shift);
            if (!dice(20) && sizes[bucket]) {           /* persons of no bucket are refused */
                kept[bucket][dice((u32)sizes[bucket]) * width] = dice(2) ? hostile() : (bucket + 1) << shift;
                check(kept[bucket], sizes[bucket], bucket << shift, 1LL << shift);
            }
        }
        assert(all == at);
        taken += good;
        for (i64 bucket = 0; bucket < buckets; bucket++) free(kept[bucket]);
        for (i32 column = 0; column < width; column++) free(columns[column]);
        free(cells); free(counts); free(sizes); free(kept);
    }
    printf("%lld\n", (long long)taken);
    return 0;
}
