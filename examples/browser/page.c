/* What the page calls: one state, one row of the image, one answer. Nothing is allocated. */
#include "digits.h"

#define EXPORTED(name) __attribute__((export_name(#name))) name

static digits_state state;
static float row[8], answer[10];

float *EXPORTED(row_at)(void) { return row; }
float *EXPORTED(answer_at)(void) { return answer; }
void EXPORTED(start)(void) { digits_init(&state); }
void EXPORTED(read_row)(void) { digits_step(&state, row, answer); }
