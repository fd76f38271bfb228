/* Looks for random texts in random texts by `sought.c` as `sought.py` does, and compares the result with plain loops.

   usage: sought_fuzz SEED SETS
   All memory has exactly its size, so that AddressSanitizer sees an access beyond it. Prints how many texts were found. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include "sought.c"

const char *__asan_default_options(void) { return "detect_leaks=0"; }

static u64 state;
static u32 dice(u32 sides) {                            /* xorshift64* */
    state ^= state >> 12; state ^= state << 25; state ^= state >> 27;
    return (u32)(((state * 0x2545F4914F6CDD1DULL) >> 32) % sides);
}

static void *sized(i64 size) { void *p = calloc(size ? (size_t)size : 1, 1); assert(p); return p; }

int main(int words, char **word_) {
    assert(words == 3);
    state = strtoull(word_[1], 0, 10) * 2 + 1;
    i64 found_ever = 0;
    for (i64 number = strtoll(word_[2], 0, 10); number; number--) {
        u32 letters = 1 + dice(4), longest = 1 + dice(dice(2) ? 4 : 20);
        i64 count = 1 + dice(30), ends[30], size = 0, length = dice(120);
        for (i64 text = 0; text < count; text++) ends[text] = size += 1 + dice(longest);
        u8 *bytes = sized(size), *text = sized(length), *found = sized(count);
        for (i64 at = 0; at < size; at++) bytes[at] = (u8)(dice(letters) * 85);
        for (i64 at = 0; at < length; at++) text[at] = (u8)(dice(letters) * 85);
        for (i32 copies = dice(3); copies; copies--) {          /* a longer one is hardly ever there by chance */
            i64 one = dice((u32)count), begin = one ? ends[one - 1] : 0, its = ends[one] - begin;
            if (its <= length) memcpy(text + (dice(2) ? length - its : dice((u32)(length - its + 1))), bytes + begin, (size_t)its);
        }
        i32 bits = 1 + (i32)dice(9);
        Sought sought = {
            .bytes = bytes, .ends = ends, .count = count, .bits = bits, .first = sized((i64)sizeof(u32) << bits),
            .next = sized(count * (i64)sizeof(u32)), .offsets = sized(count * (i64)sizeof(i64)),
        };
        stedi_prepare(&sought);
        i64 many = stedi_contained(&sought, text, length, found), plain = 0;
        for (i64 one = 0; one < count; one++) {
            i64 begin = one ? ends[one - 1] : 0, its = ends[one] - begin;
            u8 there = 0;
            for (i64 at = 0; at + its <= length; at++) there |= !memcmp(text + at, bytes + begin, (size_t)its);
            assert(found[one] == there);
            plain += there;
        }
        assert(many == plain && stedi_contained(&sought, text, length, found) == 0);
        found_ever += many;
        free(bytes); free(text); free(found); free(sought.first); free(sought.next); free(sought.offsets);
    }
    printf("%lld\n", (long long)found_ever);
    return 0;
}
