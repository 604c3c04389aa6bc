/* Before main on a Cortex-M of qemu (mps2): memory, the FPU, output by semihosting. */
#include <stdint.h>
#include <stdlib.h>

extern uint32_t data_from, data_begin, data_end, bss_begin, bss_end;
extern void initialise_monitor_handles(void);
int main(void);
void start(void);
void stop(void);
void _init(void);
void _fini(void);

void start(void)
{
    uint32_t *from = &data_from;
    for (uint32_t *to = &data_begin; to < &data_end;) *to++ = *from++;
    for (uint32_t *to = &bss_begin; to < &bss_end;) *to++ = 0;
    *(volatile uint32_t *)0xE000ED88u |= 0xF00000u; /* CPACR: the FPU may be used */
    __asm__ volatile("dsb\n isb");
    initialise_monitor_handles();
    exit(main());
}

void _init(void) {}

void _fini(void) {}

void stop(void)
{
    abort();
}

typedef void function(void);
/* The stack's address stands before these: see memory.ld. */
__attribute__((section(".vectors"), used)) function *vectors[] = {start, stop, stop, stop, stop, stop};
