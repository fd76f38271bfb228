/* Feeds the rewriting of pages with pages that are almost right; AddressSanitizer sees what goes beyond them.

   usage: pages_fuzz SEED PAGES
   Each page lies in memory of its own size, and so does all that is written. Prints how many pages were taken. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include "pages.c"

const char *__asan_default_options(void) { return "detect_leaks=0"; }

static u64 state;
static u32 dice(u32 sides) {                            /* xorshift64* */
    state ^= state >> 12; state ^= state << 25; state ^= state >> 27;
    return (u32)(((state * 0x2545F4914F6CDD1DULL) >> 32) % sides);
}

static void *sized(size_t size) { void *p = malloc(size ? size : 1); assert(p); return p; }
static u8 *exactly(const u8 *from, i64 size) { u8 *p = sized((size_t)size); memcpy(p, from, (size_t)size); return p; }
static i64 least(i64 one, i64 other) { return one < other ? one : other; }

enum { MOST = 90 };

int main(int count, char **words) {
    assert(count == 3);
    state = strtoull(words[1], 0, 10) * 2 + 1;
    i64 taken = 0;
    for (i64 number = strtoll(words[2], 0, 10); number; number--) {
        i64 rows = 1 + dice(MOST), entries = 1 + dice(dice(4) ? 9 : 300), size = 0, present = 0;
        i32 optional = (i32)dice(2), width = 0, kind = (i32)dice(4), plain = dice(2), runs = dice(2);
        u32 all = !dice(3);
        while (((u64)entries - 1) >> width) width++;
        if (!dice(20)) width = (i32)dice(33);
        u32 levels[MOST], codes[MOST];
        u8 page[16 * MOST + 600];
        for (i64 row = 0; row < rows; row++) {
            levels[row] = all || (row && runs && dice(9) ? levels[row - 1] : dice(4) != 0);
            codes[row] = row && runs && dice(9) ? codes[row - 1] : dice((u32)entries);
            present += optional ? levels[row] : 1;
        }
        if (optional) size = put_levels(levels, rows, page);
        if (plain) {
            for (i64 n = 0; n < present; n++) {
                u32 length = kind == TEXT ? dice(6) : (u32)width_of(kind);
                if (kind == TEXT) { memcpy(page + size, &length, 4); size += 4; }
                for (; length; length--) page[size++] = (u8)dice(256);
            }
        } else {
            page[size++] = (u8)width;
            i64 packed = pack(codes, present, width & 31, page + size);
            if (!(((u64)entries - 1) >> (width & 31))) { /* they fit */
                u32 again[MOST];
                assert(unpack(page + size, packed, width & 31, present, again) == packed);
                for (i64 n = 0; n < present; n++) assert(again[n] == codes[n]);
            }
            size += packed;
        }
        for (u32 changes = dice(3) ? 0 : 1 + dice(3); changes && size; changes--)
            page[dice((u32)(dice(2) ? size : least(size, 12)))] = (u8)(dice(2) ? dice(256) : dice(2) ? 0 : 255);
        if (!dice(9)) size = dice((u32)size + 1);

        i64 parts = 1 + dice(4), first = dice(50), at = dice(3) ? first : 0, claimed = dice(9) ? rows : 1 + dice(MOST);
        i64 *ranges = sized((size_t)parts * 16);
        for (i64 part = 0; part < parts; part++) {
            ranges[2 * part] = at + dice(20); at = ranges[2 * part + 1] = ranges[2 * part] + 1 + dice(30); at++;
        }
        Page given = {
            .bytes = exactly(page, size), .size = size, .count = claimed, .first = first, .optional = optional,
            .ranges = ranges, .ranges_count = parts,
            .codes = sized((size_t)claimed * 4), .levels = sized((size_t)claimed * 4),
        };
        Bounds bounds = {0}, others = {0};
        i64 room = 4 + (claimed / 8 + 1) * 11, done;
        u8 *used = sized((size_t)entries), *flags = sized((size_t)entries), *marks = sized((size_t)claimed), *to;
        memset(used, 0, (size_t)entries);
        for (i64 n = 0; n < entries; n++) flags[n] = (u8)dice(3);
        if (plain) {
            to = sized((size_t)(size + 2 * room));
            done = stedi_plain(&given, kind, dice(2) ? &bounds : 0, dice(2) ? &others : 0, to);
            assert(done <= size + room);
        } else {
            if (stedi_mark(&given, entries, flags, marks, used) == 0) {
                for (i64 n = 0; n < claimed; n++) marks[n] &= 1;
                u8 mark = (u8)dice(2);
                i64 found = stedi_ranges(marks, claimed, mark, 0), *those = sized((size_t)found * 16), row = 0;
                assert(found <= (claimed + 1) / 2 && stedi_ranges(marks, claimed, mark, those) == found);
                for (i64 n = 0; n < found; n++) {
                    for (; row < those[2 * n]; row++) assert(marks[row] != mark);
                    for (; row < those[2 * n + 1]; row++) assert(marks[row] == mark);
                }
                free(those);
            }
            for (i64 n = 0; n < entries; n++) { assert(used[n] <= 1); used[n] = 0; }
            stedi_used(&given, entries, used, flags);
            for (i64 n = 0; n < entries; n++) assert(used[n] <= 1);
            u32 *renumbered = sized((size_t)entries * 4);
            for (i64 n = 0; n < entries; n++) renumbered[n] = (u32)n;
            if (width > 31) width = 31;
            to = sized((size_t)(room + 1 + (claimed / 8 + 1) * (width + 10)));
            if (dice(4)) done = stedi_indices(&given, entries, dice(2) ? renumbered : 0, width, to);
            else done = stedi_codes(&given, entries);
            free(renumbered);
        }
        taken += done >= 0;
        free(to);
        i64 left, length = dice(9) ? size : dice((u32)size + 1);
        u32 *renumbered = sized((size_t)entries * 4);
        u8 *dictionary = exactly(page, length);
        to = sized((size_t)length);
        stedi_texts(dictionary, length, entries, (u8)dice(256), to);
        stedi_dictionary(dictionary, length, entries, kind, used, renumbered, &bounds, &left, to);
        free(to); free(dictionary); free(renumbered); free(used); free(flags); free(marks); free(ranges);
        free((void *)given.bytes); free(given.codes); free(given.levels);
    }
    printf("%lld\n", (long long)taken);
    return 0;
}
