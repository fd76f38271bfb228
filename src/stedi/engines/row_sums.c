/* Hashes rows and sums the hashes by group: of all rows, of distinct rows, or of the rows of a join.

   The library shares no code with the ones that write tables, because it is used to verify those tables. It is called
   through ctypes, so another thread reads rows at the same time. A row's group is found by its text: `codes` has the
   number of each row's text, and `groups` the group of each such number. */
#include <stdint.h>

typedef int32_t i32;
typedef int64_t i64;
typedef uint32_t u32;
typedef uint64_t u64;
typedef unsigned __int128 u128;

#ifndef STEDI_SOURCE
#define STEDI_SOURCE 0
#endif
u64 stedi_source(void) { return STEDI_SOURCE; }

#define NONE UINT32_MAX                                 /* the group of rows that are skipped */
#define MOST (INT64_MAX / 1000)                         /* the greatest moment, milliseconds, that has microseconds */

/* The sums of one group; a sum of hashes has 128 bits, so that nothing is lost in a carry. */
typedef struct { u64 rows, timely, counted, one[2], other[2]; } Sums;

static u64 mixed(u64 value) {
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

static void add(u64 *sum, u64 hash) {
    sum[0] += hash;
    sum[1] += sum[0] < hash;
}

static void count(Sums *sums, u64 one, u64 other) {
    sums->counted++;
    add(sums->one, one);
    add(sums->other, other);
}

/* A row's hash: a random linear function modulo 2^128, of which any two rows have the same value with a probability of
   2^-64. It is mixed, so that sums of hashes do not depend on sums of columns. */
static u64 hashed(const u64 *values, i32 width, const u64 *key) {
    u128 sum = (u128)key[1] << 64 | key[0];
    for (i32 place = 0; place < width; place++) {
        key += 2;
        sum += ((u128)key[1] << 64 | key[0]) * values[place];
    }
    return mixed((u64)(sum >> 64));
}

static u64 value_of(const i64 *column, i64 row, i64 scale) {
    if (scale) return (u64)column[row] * (u64)scale;
    union { double number; u64 bits; } zero = {((const double *)column)[row] + 0.0};  /* -0.0 becomes 0.0 */
    return zero.bits;
}

#define COLUMNS 8

/* Writes two hashes of each row. A column of scale 0 has doubles; integers are multiplied by their scale. A key has two
   numbers more than twice the columns; the second one follows the first. */
void stedi_hash(const i64 *const *columns, const i64 *scales, i32 width, i64 rows, const u64 *keys, u64 *one,
                u64 *other) {
    u64 values[COLUMNS];
    for (i64 row = 0; row < rows; row++) {
        for (i32 place = 0; place < width; place++) values[place] = value_of(columns[place], row, scales[place]);
        one[row] = hashed(values, width, keys);
        other[row] = hashed(values, width, keys + 2 * (width + 1));
    }
}

/* Numbers pairs of codes. */
void stedi_pair(const i32 *one, const i32 *other, i64 rows, i64 others, i64 *pairs) {
    for (i64 row = 0; row < rows; row++) pairs[row] = one[row] * others + other[row];
}

/* Adds rows to the sums of their groups. */
void stedi_add(const i32 *codes, const u32 *groups, i64 rows, const u64 *one, const u64 *other, Sums *sums) {
    for (i64 row = 0; row < rows; row++) {
        u32 group = groups[codes[row]];
        if (group == NONE) continue;
        sums[group].rows++;
        count(sums + group, one[row], other[row]);
    }
}

/* Returns where the search for a hash begins in a group's part of a hash table, from `slots[group]` on. */
static u64 start(const u64 *slots, u32 group, u64 hash) {
    return slots[group] + (u64)((u128)hash * (slots[group + 1] - slots[group]) >> 64);
}

static u64 after(const u64 *slots, u32 group, u64 slot) {
    return slot + 1 == slots[group + 1] ? slots[group] : slot + 1;
}

/* Adds rows to the sums of their groups; only distinct rows that are not before their group's `since` are counted.
   Each group has a part of the hash table `seen`, so that rows of the same group are near each other; one slot stays
   free. Returns 0; -1 if a group has more distinct rows than slots, or a moment that would overflow as microseconds:
   its hash would be that of another moment. */
i64 stedi_add_distinct(const i32 *codes, const u32 *groups, i64 rows, const u64 *one, const u64 *other,
                       const i64 *moments, const i64 *since, u64 *seen, const u64 *slots, Sums *sums) {
    for (i64 row = 0; row < rows; row++) {
        u32 group = groups[codes[row]];
        if (group == NONE) continue;
        sums[group].rows++;
        if (moments[row] > MOST || moments[row] < -MOST) return -1;
        if (moments[row] < since[codes[row]]) continue;
        sums[group].timely++;
        /* the hash has random keys, so nobody can craft rows for the same slot */
        u64 mark = one[row] + !one[row];                /* zero marks a free slot */
        if (sums[group].counted + 1 >= slots[group + 1] - slots[group]) return -1;
        u64 slot = start(slots, group, mark);
        while (seen[slot] && seen[slot] != mark) slot = after(slots, group, slot);
        if (seen[slot]) continue;
        seen[slot] = mark;
        count(sums + group, one[row], other[row]);
    }
    return 0;
}

/* One side of a join. Rows are in columns; those of the same group and moment are a list that begins in a slot. Each
   group has a part of the slots, as above. */
typedef struct {
    i64 room, rows;
    u64 key, *slots;
    u32 *next, *first;                                  /* `first` and `next` have a row plus one */
    i64 *moment, *value;
    uint8_t *joined;
} Side;

/* Returns the slot of a group and a moment, or the free slot for it. */
static u64 found(const Side *side, u32 group, i64 moment) {
    u64 slot = start(side->slots, group, mixed((u64)moment ^ side->key));
    for (u32 row; (row = side->first[slot]); slot = after(side->slots, group, slot))
        if (side->moment[row - 1] == moment) break;
    return slot;
}

/* Adds rows to a side. Returns 0; -1 if they do not fit. */
i64 stedi_put(Side *side, const i32 *codes, const u32 *groups, i64 rows, const i64 *moments, const i64 *values,
              Sums *sums) {
    for (i64 row = 0; row < rows; row++) {
        u32 group = groups[codes[row]];
        if (group == NONE) continue;
        if (side->rows >= side->room || ++sums[group].rows >= side->slots[group + 1] - side->slots[group]) return -1;
        u64 slot = found(side, group, moments[row]);
        i64 at = side->rows++;
        side->moment[at] = moments[row], side->value[at] = values[row];
        side->next[at] = side->first[slot];
        side->first[slot] = (u32)at + 1;
    }
    return 0;
}

/* Joins rows with those of a side that have the same group and moment, and sums the hashes of the joined rows: of the
   moment, the value of the side, and the other columns. A row of the side that is joined counts as timely. */
void stedi_join(Side *side, const i32 *codes, const u32 *groups, i64 rows, const i64 *moments,
                const i64 *const *columns, const i64 *scales, i32 width, const u64 *keys, Sums *sums) {
    u64 values[COLUMNS];
    for (i64 row = 0; row < rows; row++) {
        u32 group = groups[codes[row]];
        if (group == NONE || side->slots[group + 1] == side->slots[group]) continue;
        u32 at = side->first[found(side, group, moments[row])];
        if (!at) continue;
        values[0] = (u64)moments[row];
        for (i32 place = 0; place < width; place++) values[2 + place] = value_of(columns[place], row, scales[place]);
        for (; at; at = side->next[at - 1]) {
            sums[group].timely += !side->joined[at - 1];
            side->joined[at - 1] = 1;
            values[1] = (u64)side->value[at - 1];
            count(sums + group, hashed(values, width + 2, keys), hashed(values, width + 2, keys + 2 * (width + 3)));
        }
    }
}
