/* Loaded before a program: lets allocations fail from one on, or that one alone, until they are disarmed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);

static atomic_long left = -1; /* allocations before the first that fails; below 0: none fails */
static atomic_int only_one;
static atomic_long failed;

void failing_malloc_arm(long before, int alone) {
  atomic_store(&failed, 0);
  atomic_store(&only_one, alone);
  atomic_store(&left, before);
}

/* How many have failed. */
long failing_malloc_disarm(void) {
  atomic_store(&left, -1);
  return atomic_load(&failed);
}

static int fails(void) {
  long now = atomic_load(&left);
  do {
    if (now < 0) return 0;
  } while (now > 0 && !atomic_compare_exchange_weak(&left, &now, now - 1));
  if (now > 0) return 0;
  if (atomic_load(&only_one) && atomic_exchange(&left, -1) != 0) return 0;
  atomic_fetch_add(&failed, 1);
  errno = ENOMEM;
  return 1;
}

void* malloc(size_t bytes) { return fails() ? NULL : __libc_malloc(bytes); }
void* calloc(size_t count, size_t bytes) { return fails() ? NULL : __libc_calloc(count, bytes); }
void* realloc(void* memory, size_t bytes) { return fails() ? NULL : __libc_realloc(memory, bytes); }
void* memalign(size_t to, size_t bytes) { return fails() ? NULL : __libc_memalign(to, bytes); }
void* aligned_alloc(size_t to, size_t bytes) { return memalign(to, bytes); }

int posix_memalign(void** memory, size_t to, size_t bytes) {
  void* made = memalign(to, bytes);
  if (made == NULL) return ENOMEM;
  *memory = made;
  return 0;
}
