/* Sorts rows of 64-bit values by their columns and removes duplicates; the rows need not fit in memory.

   Rows are divided by their first column, a small number, into buckets that the caller stores. Each bucket is then
   sorted separately. Equal rows are in the same bucket, next to each other once it is sorted. Values are compared as
   integers: doubles are thus equal if their bits are equal, and are in some fixed order.

   The library uses no Python and keeps no state: it is called through ctypes, so other threads run at the same time. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int32_t i32;
typedef int64_t i64;
typedef uint32_t u32;
typedef uint64_t u64;

enum { FEW = 8 };                                       /* up to so many rows are sorted by insertion */

#ifndef STEDI_SOURCE
#define STEDI_SOURCE 0
#endif
u64 stedi_source(void) { return STEDI_SOURCE; }

/* Copies rows, beginning with row `from`, into the cells of their buckets; a bucket has room for `room` rows. Returns
   `rows`, or the first row that was not copied: its bucket *full has no room, or, if *full is negative, its bucket does
   not exist. */
i64 stedi_divide(const i64 *const *columns, i32 width, i64 from, i64 rows, i32 shift, i64 buckets, i64 room,
                 i64 *cells, i64 *counts, i64 *full) {
    for (i64 row = from; row < rows; row++) {
        u64 bucket = (u64)columns[0][row] >> shift;
        if (bucket >= (u64)buckets) { *full = -1; return row; }
        if (counts[bucket] >= room) { *full = (i64)bucket; return row; }
        i64 *cell = cells + ((i64)bucket * room + counts[bucket]++) * width;
        for (i32 column = 0; column < width; column++) cell[column] = columns[column][row];
    }
    return rows;
}

static int compare(const i64 *one, const i64 *other, i32 columns) {
    for (i32 column = 1; column < columns; column++)
        if (one[column] != other[column]) return one[column] < other[column] ? -1 : 1;
    return 0;
}

/* Sorts indices of rows by the columns before `columns`, without the first: merges runs that are already in order. */
static void sort(const i64 *rows, i32 columns, i32 width, u32 *places, u32 *spare, u32 *ends, i64 count) {
    if (count <= FEW) {
        for (i64 place = 1; place < count; place++) {
            u32 one = places[place];
            i64 at = place;
            for (; at && compare(rows + (i64)places[at - 1] * width, rows + (i64)one * width, columns) > 0; at--)
                places[at] = places[at - 1];
            places[at] = one;
        }
        return;
    }
    i64 runs = 0;
    for (i64 at = 0; at < count; ends[runs++] = (u32)at)
        for (at++; at < count && compare(rows + (i64)places[at - 1] * width, rows + (i64)places[at] * width, columns) <= 0;)
            at++;
    u32 *from = places, *to = spare;
    while (runs > 1) {
        i64 made = 0, begin = 0;
        for (i64 run = 0; run < runs; run += 2) {
            i64 left = begin, middle = ends[run], end = run + 1 < runs ? ends[run + 1] : middle, right = middle;
            for (i64 at = begin; at < end; at++)
                to[at] = right >= end || (left < middle && compare(rows + (i64)from[left] * width,
                                                                   rows + (i64)from[right] * width, columns) <= 0)
                             ? from[left++] : from[right++];
            begin = end;
            ends[made++] = (u32)end;
        }
        runs = made;
        u32 *other = from; from = to; to = other;
    }
    if (from != places) memcpy(places, from, (size_t)count * sizeof *places);
}

/* Sorts `count` rows and removes duplicates. The result replaces the cells, column by column, each with room for
   `count` values: the first column as 32-bit numbers relative to `first`, the others unchanged. Returns the number of
   distinct rows; -1 if memory is exhausted; -2 if a value of the first column is not in [first, first + persons). */
i64 stedi_distinct(i64 *cells, i64 count, i32 width, i64 first, i64 persons) {
    i64 result = -1, least = 0;
    i64 *rows = malloc((size_t)(count + 1) * (size_t)width * sizeof *rows);
    u32 *starts = calloc((size_t)persons + 1, sizeof *starts);
    for (i64 row = 0; row < count && starts; row++) {
        u64 person = (u64)cells[row * width] - (u64)first;
        if (person >= (u64)persons) { result = -2; goto done; }
        starts[person + 1]++;
    }
    if (!rows || !starts || count > UINT32_MAX) goto done;
    for (i64 person = 0; person < persons; person++) {
        if (starts[person + 1] > least) least = starts[person + 1];
        starts[person + 1] += starts[person];
    }
    u32 *places = malloc((size_t)(3 * least + 1) * sizeof *places);
    if (!places) goto done;
    for (i64 row = 0; row < count; row++)
        memcpy(rows + (i64)starts[cells[row * width] - first]++ * width, cells + row * width, (size_t)width * sizeof *rows);
    result = 0;
    for (i64 person = 0, begin = 0, end; person < persons; person++, begin = end) {
        const i64 *theirs = rows + begin * width, *last = NULL;
        end = starts[person];                           /* now the next person's first row: the loop advanced it */
        for (i64 place = 0; place < end - begin; place++) places[place] = (u32)place;
        sort(theirs, 2, width, places, places + least, places + 2 * least, end - begin);
        for (i64 place = 0, next; place < end - begin; place = next) {
            for (next = place + 1; next < end - begin && !compare(theirs + (i64)places[place] * width,
                                                                  theirs + (i64)places[next] * width, 2);)
                next++;
            if (next - place > 1) sort(theirs, width, width, places + place, places + least, places + 2 * least, next - place);
            for (i64 at = place; at < next; at++) {
                const i64 *row = theirs + (i64)places[at] * width;
                if (last && !compare(last, row, width)) continue;
                last = row;
                ((i32 *)cells)[result] = (i32)person;
                for (i32 column = 1; column < width; column++) cells[column * count + result] = row[column];
                result++;
            }
        }
    }
    free(places);
done:
    free(rows);
    free(starts);
    return result;
}
