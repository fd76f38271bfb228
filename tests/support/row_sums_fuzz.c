/* Sums random rows by `row_sums.c` as `row_sums.py` does, and compares the sums with those of plain loops.

   usage: row_sums_fuzz SEED TABLES
   All memory has exactly its size, so that AddressSanitizer sees an access beyond it. Prints how many tables were summed;
   the others have groups of more rows than were claimed, or moments beyond any time. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "row_sums.c"

const char *__asan_default_options(void) { return "detect_leaks=0"; }

static u64 state;
static u32 dice(u32 sides) {                            /* xorshift64* */
    state ^= state >> 12; state ^= state << 25; state ^= state >> 27;
    return (u32)(((state * 0x2545F4914F6CDD1DULL) >> 32) % sides);
}

static void *sized(i64 size) { void *p = malloc(size ? (size_t)size : 1); assert(p); return p; }
static void *zeros(i64 size) { return memset(sized(size), 0, (size_t)size); }
static u64 any(void) { return (u64)dice(UINT32_MAX) << 32 | dice(UINT32_MAX); }

static i64 hostile(void) {
    static const u64 values[] = {0, 1, 1ULL << 63, UINT64_MAX, INT64_MAX, 0x7FF0000000000000, 0x7FF0000000000001, 0x7FF8000000000000};
    return (i64)(dice(2) ? values[dice(8)] : any());
}

enum { GROUPS = 9, TEXTS = 12 };

/* Rows of at most COLUMNS columns, whose first one is the moment; each row's text, each text's group. */
typedef struct {
    i64 rows, texts, *columns[COLUMNS], scales[COLUMNS];
    i32 width, *codes;
    u32 *groups;
    i64 *since;
    u64 *one, *other, *keys;
} Given;

static u64 plain_value(const Given *given, i32 column, i64 row) {
    u64 bits = (u64)given->columns[column][row], magnitude = bits << 1;
    if (given->scales[column]) return bits * (u64)given->scales[column];
    if (magnitude > 0xFFE0000000000000) return bits | 1ULL << 51;       /* a quiet NaN */
    return magnitude ? bits : 0;
}

static u64 plain_hash(const u64 *values, i32 width, const u64 *keys) {
    u128 sum = 0;
    for (i32 place = width; place >= 0; place--)
        sum += ((u128)keys[2 * place + 1] << 64 | keys[2 * place]) * (place ? values[place - 1] : 1);
    u64 value = (u64)(sum >> 64);
    value ^= value >> 30; value *= 0xbf58476d1ce4e5b9u;
    value ^= value >> 27; value *= 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

static Given some(const u64 *keys, i32 width) {
    i64 few = dice(2);
    Given given = {.rows = dice(9) ? dice(90) : 0, .texts = 1 + dice(dice(3) ? TEXTS : 1), .width = width};
    given.codes = sized(given.rows * 4);
    given.groups = sized(given.texts * 4);
    given.since = sized(given.texts * 8);
    given.one = sized(given.rows * 8);
    given.other = sized(given.rows * 8);
    given.keys = sized(8 * 4 * (COLUMNS + 1));
    memcpy(given.keys, keys, 8 * 4 * (COLUMNS + 1));
    for (i64 text = 0; text < given.texts; text++) {
        given.groups[text] = dice(5) ? dice(GROUPS) : NONE;
        given.since[text] = dice(2) ? INT64_MIN : dice(2) ? INT64_MAX : dice(9);
    }
    for (i64 row = 0; row < given.rows; row++) given.codes[row] = (i32)dice((u32)given.texts);
    for (i32 column = 0; column < width; column++) {
        given.columns[column] = sized(given.rows * 8);
        given.scales[column] = column ? dice(2) : dice(2) ? 1000 : 1;
        for (i64 row = 0; row < given.rows; row++)
            given.columns[column][row] = few || dice(column ? 9 : 300) ? (i64)dice(column ? 3 : 9) : hostile();
    }
    stedi_hash((const i64 *const *)given.columns, given.scales, width, given.rows, given.keys, given.one, given.other);
    for (i64 row = 0; row < given.rows; row++) {
        u64 values[COLUMNS];
        for (i32 column = 0; column < width; column++) values[column] = plain_value(&given, column, row);
        assert(given.one[row] == plain_hash(values, width, given.keys));
        assert(given.other[row] == plain_hash(values, width, given.keys + 2 * (width + 1)));
        if (!few) continue;
        given.one[row] = dice(2) ? dice(3) : UINT64_MAX - dice(3);      /* as if hashes collided */
        given.other[row] = UINT64_MAX - dice(2);
    }
    return given;
}

static void end(Given *given) {
    for (i32 column = 0; column < given->width; column++) free(given->columns[column]);
    free(given->codes); free(given->groups); free(given->since); free(given->one); free(given->other); free(given->keys);
}

static u32 group_of(const Given *given, i64 row) { return given->groups[given->codes[row]]; }

static void plus(Sums *sums, u64 one, u64 other) {
    u128 first = ((u128)sums->one[1] << 64 | sums->one[0]) + one, second = ((u128)sums->other[1] << 64 | sums->other[0]) + other;
    sums->counted++;
    sums->one[0] = (u64)first; sums->one[1] = (u64)(first >> 64);
    sums->other[0] = (u64)second; sums->other[1] = (u64)(second >> 64);
}

/* The groups of a part; those of other parts are skipped. */
static u32 *part_of(const Given *given, u32 part, u32 parts) {
    u32 *groups = sized(given->texts * 4);
    for (i64 text = 0; text < given->texts; text++)
        groups[text] = given->groups[text] % parts == part ? given->groups[text] : NONE;
    return groups;
}

static u64 *slots_of(const i64 *claimed, u32 part, u32 parts) {
    u64 *slots = sized((GROUPS + 1) * 8);
    slots[0] = 0;
    for (u32 group = 0; group < GROUPS; group++)
        slots[group + 1] = slots[group] + (claimed[group] && group % parts == part ? 2 + (u64)claimed[group] * 4 / 3 : 0);
    return slots;
}

static void check_all(const Given *given) {
    Sums *sums = zeros(GROUPS * (i64)sizeof *sums), plain[GROUPS] = {0};
    for (i32 twice = 0; twice < 2; twice++) {
        stedi_add(given->codes, given->groups, given->rows, given->one, given->other, sums);
        for (i64 row = 0; row < given->rows; row++) {
            if (group_of(given, row) == NONE) continue;
            plain[group_of(given, row)].rows++;
            plus(plain + group_of(given, row), given->one[row], given->other[row]);
        }
    }
    assert(!memcmp(sums, plain, sizeof plain));
    free(sums);
}

/* Sums the distinct rows of both, which are as two row groups of a file; returns whether they fitted. */
static int check_distinct(const Given *given, const i64 *claimed, u32 parts) {
    Sums *sums = zeros(GROUPS * (i64)sizeof *sums), plain[GROUPS] = {0};
    int full = 0;
    for (u32 part = 0; part < parts && !full; part++) {
        u64 *slots = slots_of(claimed, part, parts), *seen = zeros((i64)slots[GROUPS] * 8);
        for (i32 each = 0; each < 2 && !full; each++) {
            const Given *some = given + each;
            u32 *groups = part_of(some, part, parts);
            full = stedi_add_distinct(some->codes, groups, some->rows, some->one, some->other, some->columns[0],
                                      some->since, seen, slots, sums) != 0;
            free(groups);
        }
        free(slots); free(seen);
    }
    for (i64 row = 0, both = given[0].rows + given[1].rows; row < both && !full; row++) {
        const Given *some = given + (row >= given[0].rows);
        i64 at = row - (some == given ? 0 : given[0].rows), same = 0;
        u32 group = group_of(some, at);
        if (group == NONE) continue;
        plain[group].rows++;
        if (some->columns[0][at] < some->since[some->codes[at]]) continue;
        plain[group].timely++;
        for (i64 before = 0; before < row; before++) {
            const Given *its = given + (before >= given[0].rows);
            i64 then = before - (its == given ? 0 : given[0].rows);
            same += group_of(its, then) == group && its->columns[0][then] >= its->since[its->codes[then]]
                    && (its->one[then] == some->one[at] || (its->one[then] | some->one[at]) == 1);
        }
        if (!same) plus(plain + group, some->one[at], some->other[at]);
    }
    assert(full || !memcmp(sums, plain, sizeof plain));
    free(sums);
    return !full;
}

/* Joins both `given` with `motions`; returns whether the rows fitted. */
static int check_join(const Given *given, const Given *motions, const i64 *claimed, u32 parts) {
    Sums *sums = zeros(GROUPS * (i64)sizeof *sums), plain[GROUPS] = {0};
    int full = 0;
    for (u32 part = 0; part < parts && !full; part++) {
        i64 room = 0;
        for (u32 group = part; group < GROUPS; group += parts) room += claimed[group];
        u64 *slots = slots_of(claimed, part, parts);
        Side side = {
            .room = room, .key = any(), .slots = slots, .next = zeros(room * 4), .first = zeros((i64)slots[GROUPS] * 4),
            .moment = sized(room * 8), .value = sized(room * 8), .joined = zeros(room),
        };
        for (i32 each = 0; each < 2 && !full; each++) {
            u32 *groups = part_of(given + each, part, parts);
            full = stedi_put(&side, given[each].codes, groups, given[each].rows, given[each].columns[0],
                             given[each].columns[1], sums) != 0;
            free(groups);
        }
        for (i32 each = 0; each < 2 && !full; each++) {
            const Given *some = motions + each;
            u32 *groups = part_of(some, part, parts);
            stedi_join(&side, some->codes, groups, some->rows, some->columns[0], (const i64 *const *)some->columns + 1,
                       some->scales + 1, some->width - 1, some->keys, sums);
            free(groups);
        }
        free(slots); free(side.next); free(side.first); free(side.moment); free(side.value); free(side.joined);
    }
    for (i32 each = 0; each < 2 && !full; each++)
        for (i64 step = 0; step < given[each].rows; step++) {
            u32 group = group_of(given + each, step);
            i64 moment = given[each].columns[0][step], joined = 0;
            if (group == NONE) continue;
            plain[group].rows++;
            for (const Given *some = motions; some < motions + 2; some++)
                for (i64 row = 0; row < some->rows; row++) {
                    if (group_of(some, row) != group || some->columns[0][row] != moment) continue;
                    u64 values[COLUMNS] = {(u64)moment, (u64)given[each].columns[1][step]};
                    i32 width = some->width + 1;
                    for (i32 place = 2; place < width; place++) values[place] = plain_value(some, place - 1, row);
                    plus(plain + group, plain_hash(values, width, some->keys),
                         plain_hash(values, width, some->keys + 2 * (width + 1)));
                    joined++;
                }
            plain[group].timely += joined > 0;
        }
    assert(full || !memcmp(sums, plain, sizeof plain));
    free(sums);
    return !full;
}

static void check_pairs(const Given *given) {
    i64 others = dice(2) ? 1 + dice(9) : INT32_MAX;
    i32 *other = sized(given->rows * 4);
    for (i64 row = 0; row < given->rows; row++) other[row] = (i32)dice((u32)others);
    i64 *pairs = sized(given->rows * 8);
    stedi_pair(given->codes, other, given->rows, others, pairs);
    for (i64 row = 0; row < given->rows; row++)
        assert(pairs[row] / others == given->codes[row] && pairs[row] % others == other[row]);
    free(other); free(pairs);
}

int main(int words, char **word) {
    assert(words == 3);
    state = strtoull(word[1], 0, 10) * 2 + 1;
    i64 taken = 0;
    for (i64 number = strtoll(word[2], 0, 10); number; number--) {
        u64 keys[4 * (COLUMNS + 1)];
        for (i32 place = 0; place < 4 * (COLUMNS + 1); place++) keys[place] = dice(9) ? any() : UINT64_MAX;
        i32 width = 2 + (i32)dice(COLUMNS - 1), wide = 1 + (i32)dice(COLUMNS - 1);
        Given given[2] = {some(keys, width), some(keys, width)}, motions[2] = {some(keys, wide), some(keys, wide)};
        i64 claimed[GROUPS] = {0}, few = !dice(3), extreme = 0;
        for (i32 each = 0; each < 2; each++)
            for (i64 row = 0; row < given[each].rows; row++)
                if (group_of(given + each, row) != NONE) {
                    i64 moment = given[each].columns[0][row];
                    claimed[group_of(given + each, row)]++;
                    extreme |= moment > INT64_MAX / 1000 || moment < -(INT64_MAX / 1000);
                }
        for (i32 group = 0; group < GROUPS; group++) claimed[group] = few ? dice(1 + (u32)claimed[group]) : claimed[group] + !dice(4);
        u32 parts = 1 + dice(dice(2) ? 1 : 4);
        check_all(given);
        check_pairs(given);
        int distinct = check_distinct(given, claimed, parts), join = check_join(given, motions, claimed, parts);
        assert(few ? !(distinct && extreme) : distinct == !extreme && join);    /* what was counted fits */
        taken += distinct && join;
        for (i32 each = 0; each < 2; each++) { end(given + each); end(motions + each); }
    }
    printf("%lld\n", (long long)taken);
    return 0;
}
