/* Reads clean records of one contract into typed columns, in one pass over a block of text.

   It accepts flat JSON objects whose members are the contract's fields, each at most once, in any order and case, with
   white space and commas between the records. If it is not sure of a record (escapes, unknown or duplicate names, null,
   values that may violate the contract, characters in addresses that are not listed, any damage), it stops before that
   record, and the caller's careful parser reads it. The careful parser accepts every record that is accepted here, with
   the same values.

   Records of a file are mostly written alike. So the scanner guesses that the field follows that followed last, behind
   the same bytes, and compares these at once; only if they differ, it reads them one by one.

   Bounds: a member is read only if SLACK bytes follow its first byte, and no name, number or separator is longer than
   that; strings and white space are read with a check of the block's end. So no byte beyond the block is read, and the
   careful parser nearly always reads the last record of a text. Nothing of a record is stored until all of it is valid.

   The library uses no Python and keeps no state: it is called through ctypes, so other threads run at the same time. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __APPLE__
#include <xlocale.h>
#endif

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t i32;
typedef int64_t i64;

enum { TEXT, INSTANT, NUMBER, INTEGER };               /* kinds of fields */
enum { MORE, UNSURE, FULL };                            /* why a scan ended; MORE also: this record is good so far */
enum { SLACK = 64, FIELDS = 16, WORDS = 4, LEAD = 8 * WORDS, DIGITS = 25 };
enum { LETTERS = 0x800 };                               /* for code points below it, each is listed separately */
static const u32 NONE = 0xFFFFFFFFu;

typedef struct {                                        /* one field: its rules, and its values so far */
    i32 kind, required, address, length;                /* length of its name in bytes, at most 8 * WORDS */
    u64 name[WORDS], mask[WORDS];                       /* the name in lower case, and a mask of its bytes */
    u64 lead[WORDS], led[WORDS];                        /* what stood before its last value, and a mask of its bytes */
    i32 led_by, next;                                   /* length of that, or 0; the field that followed it last */
    void *values;                                       /* by row: i64, double, or i32 index of a text */
    u8 *valid;                                          /* one bit per row: whether it has a value; initially 0 */
    u32 *slots, *ends;                                  /* texts: a hash table of index + 1; start and end offsets */
    u8 *bytes;
    u32 mask_of_slots, most_slots;                      /* slots, less one: now, and at most; powers of 4, less one */
    u32 texts, most_texts, used, room;
    u32 last;                                           /* the previous row's text; NONE if it may have escapes */
} Column;

typedef struct {
    i32 fields, file, first;                            /* file: the file number of new rows; first: see `next` */
    i64 rows, room, longest;                            /* rows so far; most rows; most bytes of a record */
    i64 begin, end;                                     /* valid instants: begin <= t < end */
    u64 seed;                                           /* seed of the hashes; unknown to whoever delivers files */
    i32 *files;
    void *locale;
    const u8 *seen;                                     /* one bit per code point below LETTERS: allowed in addresses */
    Column columns[FIELDS];
} Table;

typedef struct { const u8 *text; i64 whole; double real; u32 size; } Value; /* whole: also a text's index, or UNKNOWN */
enum { UNKNOWN = -1 };

static u64 word(const u8 *p) { u64 v; memcpy(&v, p, 8); return v; }
static int is_space(u8 c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
static int is_digit(u8 c) { return (u8)(c - '0') < 10; }

/* Sets the high bit of each byte that is a quote, a backslash, a control character or not ASCII. Only the first set bit
   is reliable. */
static u64 special(u64 v) {
    const u64 one = 0x0101010101010101ULL, high = 0x8080808080808080ULL;
    u64 quote = v ^ (one * '"'), slash = v ^ (one * '\\');
    return (((quote - one) & ~quote) | ((slash - one) & ~slash) | ((v - one * 0x20) & ~v) | v) & high;
}

/* Returns the length of the well-formed non-ASCII UTF-8 sequence at p (Unicode, table 3-7), or 0 if there is none. At
   least 4 bytes must be readable. */
static int sequence(const u8 *p) {
    u8 a = p[0], b = p[1];
    int size = a < 0xC2 ? 0 : a < 0xE0 ? 2 : a < 0xF0 ? 3 : a < 0xF5 ? 4 : 0;
    if (!size) return 0;
    for (int i = 1; i < size; i++) if ((p[i] & 0xC0) != 0x80) return 0;
    if ((a == 0xE0 && b < 0xA0) || (a == 0xED && b > 0x9F) || (a == 0xF0 && b < 0x90) || (a == 0xF4 && b > 0x8F)) return 0;
    return size;
}

/* Reads a string from after its opening quote to its closing quote. */
static int string(const u8 **at, const u8 *end, Value *value) {
    const u8 *p = *at;
    for (;;) {
        if (end - p < 12) return MORE;                  /* a word, plus a sequence that begins in its last byte */
        u64 found = special(word(p));
        if (!found) { p += 8; continue; }
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        p += __builtin_ctzll(found) >> 3;
#else
        while (*p >= 0x20 && *p < 0x80 && *p != '"' && *p != '\\') p++;
#endif
        if (*p == '"') break;
        int size = *p < 0x80 ? 0 : sequence(p);
        if (!size) return UNSURE;
        p += size;
    }
    value->text = *at;
    value->size = (u32)(p - *at);
    *at = p + 1;
    return -1;
}

static const double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* Returns the eight digits at p as a number, or -1 if they are not all digits (Lemire, 2018). */
static i64 eight(const u8 *p) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    u64 v = word(p);
    if (((v & 0xF0F0F0F0F0F0F0F0ULL) | (((v + 0x0606060606060606ULL) & 0xF0F0F0F0F0F0F0F0ULL) >> 4)) != 0x3333333333333333ULL)
        return -1;
    v = (v & 0x0F0F0F0F0F0F0F0FULL) * 2561 >> 8;
    v = (v & 0x00FF00FF00FF00FFULL) * 6553601 >> 16;
    return (i64)((v & 0x0000FFFF0000FFFFULL) * 42949672960001ULL >> 32);
#else
    (void)p;
    return -1;
#endif
}

/* Reads a number like 0.25, of at most six digits, without a branch that depends on how many there are. Returns its
   length, or 0 if it is for `number` to judge. Eight bytes must be readable. */
static i64 decimal(const u8 *p, double *real) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const u64 high = 0x8080808080808080ULL;
    u64 v = word(p) ^ 0x3030303030303030ULL, other = (((v & ~high) + 0x7676767676767676ULL) | v) & high;
    u64 behind = other & (other - 1);
    if (!behind) return 0;                              /* it does not end in these bytes */
    int point = __builtin_ctzll(other) & ~7, end = __builtin_ctzll(behind) & ~7;    /* in bits */
    if (!point || p[point >> 3] != '.' || end - point < 16) return 0;
    if ((p[end >> 3] | 0x20) == 'e' || (point > 8 && *p == '0')) return 0;
    u64 whole = ((u64)1 << point) - 1;
    v = ((v & whole) | (v >> 8 & ~whole)) << (72 - end); /* the digits alone, in the last bytes */
    v = v * 2561 >> 8;
    v = (v & 0x00FF00FF00FF00FFULL) * 6553601 >> 16;
    v = (v & 0x0000FFFF0000FFFFULL) * 42949672960001ULL >> 32;
    *real = (double)v / POWERS[((end - point) >> 3) - 1];
    return end >> 3;
#else
    (void)p, (void)real;
    return 0;
#endif
}

/* Reads a JSON number as the nearest double. SLACK bytes must be readable; no part of it is longer than DIGITS. */
static int number(const u8 **at, void *locale, double *result) {
    const u8 *p = *at;
    int minus = *p == '-';
    const u8 *digits = p += minus;
    double real;
    int whole = 0;
    i64 brief = FLT_EVAL_METHOD == 0 ? decimal(p, &real) : 0;
    if (brief) { p += brief; goto found; }
    u64 value = 0;                                      /* correct for at most 19 digits */
    i32 exponent = 0;
    for (; is_digit(*p) && p - digits < DIGITS; p++) value = value * 10 + (u8)(*p - '0');
    i64 count = p - digits;
    if (!count || is_digit(*p) || (count > 1 && *digits == '0')) return UNSURE;
    whole = 1;
    if (*p == '.') {
        const u8 *point = ++p;
        for (; is_digit(*p) && p - point < DIGITS; p++) value = value * 10 + (u8)(*p - '0');
        if (p == point || is_digit(*p)) return UNSURE;
        exponent = -(i32)(p - point);
        count += p - point;
        whole = 0;
    }
    if (*p == 'e' || *p == 'E') {
        int less = *++p == '-';
        p += *p == '-' || *p == '+';
        const u8 *power = p;
        i32 found = 0;
        for (; is_digit(*p) && p - power < 4; p++) found = found * 10 + (*p - '0');
        if (p == power || is_digit(*p)) return UNSURE;
        exponent += less ? -found : found;
        whole = 0;
    }
    if (FLT_EVAL_METHOD == 0 && count < 20 && value <= 1ULL << 53 && exponent >= -22 && exponent <= 22) {
        /* both operands are exact, so there is one rounding and the result is the nearest double (Clinger, 1990) */
        real = exponent < 0 ? (double)value / POWERS[-exponent] : (double)value * POWERS[exponent];
    } else {
        char copy[SLACK];
        memcpy(copy, digits, (size_t)(p - digits));
        copy[p - digits] = 0;
        real = strtod_l(copy, NULL, (locale_t)locale);
        if (!isfinite(real)) return UNSURE;
    }
found:;
    u64 sign = (u64)(minus & !(whole & (real == 0))) << 63; /* integer -0 is 0; no branch, as signs are random */
    u64 bits;
    memcpy(&bits, &real, 8);
    bits |= sign;
    memcpy(result, &bits, 8);
    *at = p;
    return -1;
}

/* Reads an integer of at most 18 digits without fraction or exponent. SLACK bytes must be readable. */
static int integer(const u8 **at, i64 *result) {
    const u8 *p = *at;
    int minus = *p == '-';
    const u8 *digits = p += minus;
    i64 value = eight(p), rest;
    if (value < 0) value = 0; else p += 8;
    if (p != digits && !is_digit(p[5]) && (rest = eight(p - 3)) >= 0) { /* 13 digits, as instants have */
        value = value * 100000 + rest % 100000;
        p += 5;
    }
    for (; is_digit(*p) && p - digits < 18; p++) value = value * 10 + (*p - '0');
    if (p == digits || is_digit(*p) || (p - digits > 1 && *digits == '0')) return UNSURE;
    *result = minus ? -value : value;
    *at = p;
    return -1;
}

static int is_called(const Column *column, const u8 *p) {
    for (i32 n = 0; 8 * n < column->length; n++) {
        /* only letters differ by this bit, and the names consist of letters */
        if (((word(p + 8 * n) | 0x2020202020202020ULL) & column->mask[n]) != column->name[n]) return 0;
    }
    return p[column->length] == '"';
}

static int is_equal(const u8 *a, const u8 *b, u32 size) {
    if (size < 8) return !memcmp(a, b, size);
    for (u32 i = 0; i < size - 8; i += 8) if (word(a + i) != word(b + i)) return 0;
    return word(a + size - 8) == word(b + size - 8);
}

static int is_text(const Column *column, u32 place, const u8 *text, u32 size) {
    u32 begin = column->ends[place];
    return column->ends[place + 1] - begin == size && is_equal(column->bytes + begin, text, size);
}

/* Returns the index of the string at p, after its quote, if it equals the previous row's text; else UNKNOWN. */
static i64 repeated(const Column *column, const u8 *p, const u8 *end, Value *value) {
    u32 last = column->last;
    if (last == NONE) return UNKNOWN;
    u32 size = column->ends[last + 1] - column->ends[last];
    if (end - p <= size || p[size] != '"' || !is_text(column, last, p, size)) return UNKNOWN;
    value->text = p;
    value->size = size;
    return last;
}

/* Returns whether the same bytes stand at p as before the column's last value. LEAD bytes must be readable. */
static int is_led(const Column *column, const u8 *p) {
    for (i32 n = 0; 8 * n < column->led_by; n++) {
        if ((word(p + 8 * n) ^ column->lead[n]) & column->led[n]) return 0;
    }
    return column->led_by > 0;
}

/* Keeps what stands before a value: records of a file are mostly written alike. LEAD bytes must be readable. */
static void keep_lead(Column *column, const u8 *p, i64 size) {
    column->led_by = size <= LEAD ? (i32)size : 0;
    memset(column->led, 0, LEAD);
    memset(column->led, 0xFF, (size_t)column->led_by);
    memcpy(column->lead, p, LEAD);
}

/* Reads a name, and what is around it, from a record's opening brace or a comma to the value; sets *found to its field.
   Then SLACK bytes are readable. */
static int name(Table *table, const u8 **at, const u8 *end, i32 *found) {
    const u8 *p = *at + 1;
    while (p < end && is_space(*p)) p++;
    if (end - p < SLACK) return MORE;
    if (*p++ != '"') return UNSURE;
    i32 k = *found;
    if (k >= table->fields || !is_called(table->columns + k, p)) {
        for (k = 0; k < table->fields && !is_called(table->columns + k, p); k++) {}
        if (k == table->fields) return UNSURE;
    }
    p += table->columns[k].length + 1;
    while (p < end && is_space(*p)) p++;
    if (p == end) return MORE;
    if (*p++ != ':') return UNSURE;
    while (p < end && is_space(*p)) p++;
    if (end - p < SLACK) return MORE;
    keep_lead(table->columns + k, *at, p - *at);
    *found = k;
    *at = p;
    return -1;
}

/* Reads an object from its opening brace; sets a bit in *given for each field that has a value. */
static int members(Table *table, const u8 **at, const u8 *end, Value *values, u32 *given) {
    const u8 *p = *at;
    i32 *next = &table->first;
    *given = 0;
    for (;;) {
        i32 k = *next;
        int ended = -1;
        if (end - p >= LEAD + SLACK && k < table->fields && is_led(table->columns + k, p)) {
            p += table->columns[k].led_by;
        } else if ((ended = name(table, &p, end, &k)) >= 0) {
            return ended;
        }
        if (*given & 1u << k) return UNSURE;
        *given |= 1u << k;
        *next = k;
        Column *column = table->columns + k;
        next = &column->next;
        Value *value = values + k;
        if (column->kind == TEXT) {
            if (*p++ != '"') return UNSURE;
            value->whole = repeated(column, p, end, value);
            if (value->whole >= 0) p += value->size + 1;
            else ended = string(&p, end, value);
        } else if (column->kind == NUMBER) {
            ended = number(&p, table->locale, &value->real);
        } else {
            ended = integer(&p, &value->whole);
            if (column->kind == INSTANT && (value->whole < table->begin || value->whole >= table->end)) return UNSURE;
        }
        if (ended >= 0) return ended;
        while (p < end && is_space(*p)) p++;
        if (p == end) return MORE;
        if (*p == '}') break;
        if (*p != ',') return UNSURE;
    }
    *at = p + 1;
    return -1;
}

static u64 mixed(u64 a, u64 b) {
    __uint128_t product = (__uint128_t)a * b;
    return (u64)product ^ (u64)(product >> 64);
}

static u64 hash(const u8 *text, u32 size, u64 seed) {
    u64 h = seed ^ size;
    u32 i = 0;
    for (; size - i >= 8; i += 8) h = mixed(h ^ word(text + i), 0x9E3779B97F4A7C15ULL ^ seed);
    u64 rest = 0;
    memcpy(&rest, text + i, size - i);
    return mixed(h ^ rest, 0xD6E8FEB86659FD93ULL ^ seed);
}

/* Returns the index of a text in its column; for a new text, -1 - slot, where slot is its slot in the hash table. */
static i64 known(Column *column, const u8 *text, u32 size, u64 seed) {
    u32 next = column->last + 1;                        /* files often list customers in turn */
    if (next < column->texts && is_text(column, next, text, size)) return next;
    u32 slot = (u32)hash(text, size, seed) & column->mask_of_slots;
    for (u32 place; (place = column->slots[slot]); slot = (slot + 1) & column->mask_of_slots) {
        if (is_text(column, place - 1, text, size)) return place - 1;
    }
    return -1 - (i64)slot;
}

/* Uses four times as many slots, once a quarter of them are taken: what few texts need stays in a core's cache. */
static void widen(Column *column, u64 seed) {
    if (column->texts <= column->mask_of_slots / 4 || column->mask_of_slots >= column->most_slots) return;
    u32 mask = column->mask_of_slots = 4 * column->mask_of_slots + 3;
    memset(column->slots, 0, ((size_t)mask + 1) * sizeof *column->slots);
    for (u32 n = 0; n < column->texts; n++) {
        u32 begin = column->ends[n], slot = (u32)hash(column->bytes + begin, column->ends[n + 1] - begin, seed) & mask;
        while (column->slots[slot]) slot = (slot + 1) & mask;
        column->slots[slot] = n + 1;
    }
}

/* Returns whether a new text is certainly valid for its field; the text must be UTF-8. */
static int is_good(const Column *column, const u8 *text, u32 size, const u8 *seen) {
    int visible = 0, known = 1;
    for (u32 i = 0; i < size; i++) {
        u32 c = text[i];
        if (c >= 0xC0 && c < 0xE0) c = (c & 0x1F) << 6 | (text[++i] & 0x3F);
        else if (c >= 0xE0) { known = 0; continue; }
        visible |= c > ' ' && c < 0x7F;
        known &= seen[c >> 3] >> (c & 7) & 1;
    }
    return (visible || !column->required) && (known || !column->address);
}

/* Adds a row of valid values; new texts are still checked here, unless `judged` is set. */
static int add(Table *table, Value *values, u32 given, int judged) {
    i64 row = table->rows;
    if (row == table->room) return FULL;
    for (i32 k = 0; k < table->fields; k++) {           /* first all checks that may refuse the row */
        Column *column = table->columns + k;
        if (!(given & 1u << k)) {
            if (column->required) return UNSURE;
        } else if (column->kind == TEXT) {
            Value *value = values + k;
            if (value->whole < 0) value->whole = known(column, value->text, value->size, table->seed);
            if (value->whole >= 0) continue;
            if (!judged && !is_good(column, value->text, value->size, table->seen)) return UNSURE;
            if (column->texts == column->most_texts || column->room - column->used < value->size) return FULL;
        }
    }
    for (i32 k = 0; k < table->fields; k++) {           /* then store its values */
        Column *column = table->columns + k;
        Value *value = values + k;
        int there = given >> k & 1;
        if (there && !column->required) column->valid[row >> 3] |= (u8)(1u << (row & 7));
        if (column->kind == NUMBER) {
            ((double *)column->values)[row] = there ? value->real : 0;
        } else if (column->kind == TEXT) {
            if (there && value->whole < 0) {
                memcpy(column->bytes + column->used, value->text, value->size);
                column->slots[-1 - value->whole] = ++column->texts;
                column->ends[column->texts] = column->used += value->size;
                value->whole = column->texts - 1;
                widen(column, table->seed);
            }
            ((i32 *)column->values)[row] = there ? (i32)value->whole : 0;
            if (there) column->last = judged ? NONE : (u32)value->whole;
        } else {
            ((i64 *)column->values)[row] = there ? value->whole : 0;
        }
    }
    table->files[row] = table->file;
    table->rows = row + 1;
    return -1;
}

/* Reads records of a block from offset `at` on; returns the offset after the last record that was added, or `at`.

   Sets *why to the reason for the end: MORE, the block has ended; UNSURE, the next record is for the careful parser;
   FULL, there is no room for another row or text. */
i64 stedi_scan(Table *table, const u8 *bytes, i64 size, i64 at, i32 *why) {
    const u8 *end = bytes + size, *p = bytes + at, *done = p;
    Value values[FIELDS];
    for (;;) {
        while (p < end && (is_space(*p) || *p == ',')) p++;
        if (p == end) { *why = MORE; break; }
        if (*p != '{') { *why = UNSURE; break; }
        const u8 *record = p;
        u32 given;
        int ended = members(table, &p, end, values, &given);
        if (ended < 0) ended = p - record > table->longest ? UNSURE : add(table, values, given, 0);
        if (ended >= 0) { *why = ended; break; }
        done = p;
    }
    return done - bytes;
}

/* Adds a row that the careful parser has accepted; returns FULL or -1. From then on its texts count as valid, whatever
   they contain. */
i32 stedi_add(Table *table, Value *values, u32 given) {
    for (i32 k = 0; k < table->fields; k++) {
        if (table->columns[k].kind == TEXT) values[k].whole = UNKNOWN;
    }
    return add(table, values, given, 1);
}

/* Returns the number of line breaks in [at, end) of a block. */
i64 stedi_lines(const u8 *bytes, i64 at, i64 end) {
    enum { LANES = 64 };
    i64 lines = 0;
    while (end - at >= LANES) {
        u8 found[LANES] = {0};                          /* a byte counts up to 255; all lanes are counted at once */
        for (int n = 0; n < 255 && end - at >= LANES; n++, at += LANES) {
            for (int lane = 0; lane < LANES; lane++) found[lane] += bytes[at + lane] == '\n';
        }
        for (int lane = 0; lane < LANES; lane++) lines += found[lane];
    }
    for (; at < end; at++) lines += bytes[at] == '\n';
    return lines;
}

/* Makes the "C" locale, so that numbers are parsed alike everywhere; once per process. */
void *stedi_locale(void) { return newlocale(LC_ALL_MASK, "C", (locale_t)0); }

/* Returns a hash of the source that this was compiled from, so that an outdated library is not used. */
u64 stedi_source(void) { return STEDI_SOURCE; }
