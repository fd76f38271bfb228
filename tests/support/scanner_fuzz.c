/* Feeds the scanner texts that are almost records and asserts what must hold of whatever it says.

   usage: scanner_fuzz SEED TEXTS [FILE...]
   Each text lies at the end of memory of its own size, so that AddressSanitizer sees a byte read beyond it. It is one of the
   files, or made of pieces that records are made of, and changed at some places; it is scanned from any place to its end. */
#define _GNU_SOURCE
#include <assert.h>
#include <stdio.h>
#include "scanner.c"

const char *__asan_default_options(void) { return "detect_leaks=0"; }  /* tables live as long as the process */

static u64 state;
static u32 dice(u32 sides) {                            /* xorshift64* */
    state ^= state >> 12; state ^= state << 25; state ^= state >> 27;
    return (u32)(((state * 0x2545F4914F6CDD1DULL) >> 32) % sides);
}

static const char *NAMES[][10] = {
    {"customername", "email", "phone", "birthday", "serialnumber", "registrationdate", "lastupdatedate",
     "sharewithresearchasofdate", "sharewithpublicasofdate", "sharewithfriendsasofdate"},
    {"user", "timestamp", "x", "y", "z"},
    {"sensorreadingtime", "serialnumber", "distancefromobject"},
};
static const char *KINDS[] = {"0a00011111", "a1222", "103"};  /* as the enum; a: an address */
static const char *REQUIRED[] = {"0100111000", "11111", "111"};
static const char *PIECES[] = {
    "{", "}", "\"", ":", ",", "[", "]", " ", "\n", "\r\n", "\\", "\\u0041", "null", "true", "-", ".", "e", "E+", "0", "9",
    "1655564444103", "946684799999", "-0.0", "1e400", "12345678901234567890", "0.1234567890123456789012345", "é", "用", "\x7f",
    "\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff", "}{", "},{", "\"x\":", "\"user\":\"", "a@x.org", "                ",
};

enum { ROOM = 24, TEXTS_ROOM = 40, BYTES_ROOM = 300, SLOTS = 64, LONGEST = 4096 };

static void *sized(size_t size) { void *p = malloc(size); assert(p); memset(p, 0, size); return p; }

static Table *table(int feed) {
    Table *t = sized(sizeof *t);
    for (t->fields = 0; KINDS[feed][t->fields]; t->fields++) {
        Column *c = t->columns + t->fields;
        char kind = KINDS[feed][t->fields];
        const char *name = NAMES[feed][t->fields];
        c->kind = kind == 'a' ? TEXT : kind - '0';
        c->address = kind == 'a';
        c->required = REQUIRED[feed][t->fields] == '1';
        c->length = (i32)strlen(name);
        memcpy(c->name, name, strlen(name));
        memset(c->mask, 0xFF, strlen(name));
        c->values = sized(ROOM * (c->kind == TEXT ? 4 : 8));
        c->valid = sized(ROOM / 8);
        c->slots = sized(SLOTS * 4);
        c->ends = sized((TEXTS_ROOM + 1) * 4);
        c->bytes = sized(BYTES_ROOM);
        c->mask_of_slots = 3;
        c->most_slots = SLOTS - 1;
        c->most_texts = TEXTS_ROOM;
        c->room = BYTES_ROOM;
        c->last = ~0u;
        c->next = t->fields + 1;
    }
    t->room = ROOM; t->longest = LONGEST; t->begin = 946684800000; t->end = 253402300800000; t->seed = 7;
    t->files = sized(ROOM * 4);
    t->locale = stedi_locale();
    u8 *seen = sized(LETTERS / 8);
    for (u32 c = ' '; c < LETTERS; c++) if (c < 0x7F || c % 3 == 2) seen[c >> 3] |= (u8)(1 << (c & 7));
    t->seen = seen;
    return t;
}

static void clear(Table *t) {
    t->rows = 0;
    for (i32 k = 0; k < t->fields; k++) {
        Column *c = t->columns + k;
        memset(c->slots, 0, ((size_t)c->mask_of_slots + 1) * 4);
        if (dice(2)) memset(c->slots, 0, SLOTS * 4), c->mask_of_slots = 3;
        memset(c->valid, 0, ROOM / 8);
        c->ends[0] = c->texts = c->used = 0;
        c->last = ~0u;
    }
}

static size_t put(char *to, size_t at, const char *piece) {
    size_t size = strlen(piece);
    if (at + size >= LONGEST) return at;
    memcpy(to + at, piece, size);
    return at + size;
}

static size_t made(char *to, int feed) {
    size_t at = 0;
    for (u32 records = 1 + dice(4); records; records--) {
        at = put(to, at, "{");
        for (int k = 0; KINDS[feed][k]; k++) {
            char value[120];
            if (REQUIRED[feed][k] == '0' && dice(3) == 0) continue;
            if (at && to[at - 1] != '{') at = put(to, at, dice(4) ? "," : ", ");
            at = put(to, put(to, put(to, at, "\""), NAMES[feed][k]), "\":");
            switch (KINDS[feed][k]) {
            case '0': case 'a': snprintf(value, sizeof value, "\"%0*u@x.org\"", (int)(dice(9) ? 1 : dice(100)), dice(dice(2) ? 90 : 2)); break;
            case '2': snprintf(value, sizeof value, "%s%u.%u%s", dice(2) ? "-" : "", dice(30), dice(100000), dice(9) ? "" : "e-3"); break;
            case '3': snprintf(value, sizeof value, "%u", dice(400)); break;
            default: snprintf(value, sizeof value, "16555644%05u", dice(100000));
            }
            at = put(to, at, value);
        }
        at = put(to, at, "}");
        at = put(to, at, dice(4) ? "\n" : dice(2) ? "" : dice(2) ? "," : "\r\n");
    }
    return at;
}

static size_t changed(char *text, size_t size) {
    for (u32 times = dice(4); times; times--) {
        size_t at = size ? dice((u32)size + 1) : 0, gone = dice(3) ? 0 : dice(8);
        if (gone > size - at) gone = size - at;
        const char *piece = dice(4) ? PIECES[dice(sizeof PIECES / sizeof *PIECES)] : "";
        char byte[2] = {(char)(1 + dice(255)), 0};
        if (dice(3) == 0) piece = byte;
        size_t added = strlen(piece);
        if (size - gone + added >= LONGEST) continue;
        memmove(text + at + added, text + at + gone, size - at - gone);
        memcpy(text + at, piece, added);
        size += added - gone;
    }
    return dice(4) ? size : dice((u32)size + 1);        /* or cut anywhere */
}

static void check(const Table *t, const u8 *text, i64 size, i64 from, i64 at, i64 rows, i32 why) {
    assert(from <= at && at <= size && (why == MORE || why == UNSURE || why == FULL));
    assert(rows <= t->rows && t->rows <= ROOM && (at > from) == (t->rows > rows));
    assert(at == from || text[at - 1] == '}');
    for (i32 k = 0; k < t->fields; k++) {
        const Column *c = t->columns + k;
        assert(c->texts <= TEXTS_ROOM && c->used <= BYTES_ROOM && c->ends[0] == 0 && c->ends[c->texts] == c->used);
        for (u32 n = 0; n < c->texts; n++) assert(c->ends[n] <= c->ends[n + 1]);
        u32 taken = 0;
        if (c->kind == TEXT) for (u32 n = 0; n <= c->mask_of_slots; n++) taken += c->slots[n] > 0;
        assert(c->mask_of_slots < SLOTS && taken == c->texts);
        for (i64 row = rows; row < t->rows; row++) {
            int there = c->required || (c->valid[row >> 3] >> (row & 7) & 1);
            if (c->kind == TEXT && there) assert(((i32 *)c->values)[row] >= 0 && (u32)((i32 *)c->values)[row] < c->texts);
            if (c->kind == NUMBER) assert(isfinite(((double *)c->values)[row]));
            if (c->kind == INSTANT && there) {
                i64 instant = ((i64 *)c->values)[row];
                assert(t->begin <= instant && instant < t->end);
            }
        }
    }
}

int main(int count, char **words) {
    assert(count > 2);
    state = strtoull(words[1], NULL, 10) * 2 + 1;
    u64 texts = strtoull(words[2], NULL, 10), taken = 0;
    Table *tables[] = {table(0), table(1), table(2)};
    static char text[LONGEST];
    for (u64 n = 0; n < texts; n++) {
        int feed = (int)dice(3);
        size_t size = 0;
        if (count > 3 && (n < (u64)count - 3 || dice(8) == 0)) {
            FILE *file = fopen(words[3 + (n < (u64)count - 3 ? (u32)n : dice((u32)count - 3))], "rb");
            assert(file);
            size = fread(text, 1, LONGEST - 1, file);
            fclose(file);
            if (n >= (u64)count - 3) size = changed(text, size);
        } else {
            size = changed(text, made(text, feed));
        }
        u8 *exact = malloc(size ? size : 1);
        assert(exact);
        memcpy(exact, text, size);
        for (int each = 0; each < 3; each++) {
            if (each != feed && n >= (u64)count - 3) continue;   /* files are tried as each feed */
            Table *t = tables[each];
            if (dice(40) == 0) clear(t);
            for (i64 at = 0, from = dice(4) ? 0 : dice((u32)size + 1); ; from = at) {
                i64 rows = t->rows;
                i32 why = -1;
                at = stedi_scan(t, exact, (i64)size, from, &why);
                check(t, exact, (i64)size, from, at, rows, why);
                taken += (u64)(t->rows - rows);
                assert(stedi_lines(exact, from, (i64)size) <= (i64)size - from);
                if (why == FULL) { if (!t->rows) break; clear(t); continue; }
                while (at < (i64)size && exact[at] != '\n') at++;   /* as the careful parser would take one */
                if (at++ >= (i64)size) break;
                if (at > (i64)size) break;
            }
        }
        free(exact);
    }
    printf("%llu\n", (unsigned long long)taken);
    return 0;
}
