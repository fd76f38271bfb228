/* Takes random texts apart by `dictionaries.c`, and compares the result with a plain loop over what was put together.

   usage: dictionaries_fuzz SEED PAGES
   All memory has exactly its size, so that AddressSanitizer sees an access beyond it. Prints how many pages were whole.
   */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include "dictionaries.c"

const char *__asan_default_options(void) { return "detect_leaks=0"; }

static u64 state;
static uint32_t dice(uint32_t sides) {                  /* xorshift64* */
    state ^= state >> 12; state ^= state << 25; state ^= state >> 27;
    return (uint32_t)(((state * 0x2545F4914F6CDD1DULL) >> 32) % sides);
}

static u8 *sized(i64 size) { u8 *p = malloc(size ? (size_t)size : 1); assert(p); return p; }

int main(int words, char **word) {
    assert(words == 3);
    state = strtoull(word[1], 0, 10) * 2 + 1;
    i64 whole = 0;
    for (i64 number = strtoll(word[2], 0, 10); number; number--) {
        u8 given[4000], expected[4000];
        i64 size = 0, written = 0;
        int bad = 0;
        for (uint32_t texts = dice(9); texts; texts--) {
            i64 length = dice(9) ? dice(12) : dice(300);
            given[size++] = (u8)length; given[size++] = (u8)(length >> 8); given[size++] = 0; given[size++] = 0;
            for (i64 at = 0; at < length; at++) {
                u8 letter = dice(90) ? (u8)('a' + dice(26)) : (u8)dice(256);
                bad |= letter == 31;
                given[size++] = expected[written++] = letter;
            }
            expected[written++] = 31;
        }
        int damaged = !dice(4) && size;
        if (damaged && dice(2)) size -= 1 + dice((uint32_t)(size < 9 ? size : 9));
        else if (damaged) given[dice((uint32_t)size)] = dice(2) ? 255 : (u8)dice(256);
        u8 *page = sized(size), *to = sized(size);
        memcpy(page, given, (size_t)size);
        i64 found = stedi_split(page, size, 31, to);
        assert(found <= size);
        if (!damaged) {
            assert(bad ? found == -1 : found == written && !memcmp(to, expected, (size_t)written));
            whole += !bad;
        }
        free(page); free(to);
    }
    printf("%lld\n", (long long)whole);
    return 0;
}
