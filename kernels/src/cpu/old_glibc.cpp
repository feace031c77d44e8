// What the libraries need of glibc since 2.29, by way of what 2.28 has: then they load on RHEL 8 and its
// like, and their wheel is manylinux_2_28. The linker takes these functions, which nothing else sees, in
// place of glibc's, for libstdc++ inside the libraries as well. glibc keeps the versions that symbols had at
// first for ever.
#include <pthread.h>
#include <sys/stat.h>

#if defined(__x86_64__)
#define PATCHCUT_FIRST_GLIBC "GLIBC_2.2.5"
#define PATCHCUT_STAT_VERSION 1
#else
#define PATCHCUT_FIRST_GLIBC "GLIBC_2.17"
#define PATCHCUT_STAT_VERSION 0
#endif

// old_NAME is glibc's function in its first version; own_NAME is what the linker knows as NAME.
#define PATCHCUT_OLD(result, name, parameters)                                       \
  result old_##name parameters;                                                      \
  __asm__(".symver old_" #name "," #name "@" PATCHCUT_FIRST_GLIBC);                  \
  __attribute__((visibility("hidden"))) result own_##name parameters __asm__(#name); \
  result own_##name parameters

extern "C" {

// Atomic counts are atomic even while there is one thread.
__attribute__((visibility("hidden"))) extern char own_single_threaded __asm__("__libc_single_threaded");
char own_single_threaded = 0;

// 2.29 took out how these told errors before C99; their values are the same.
PATCHCUT_OLD(double, log, (double x)) { return old_log(x); }
PATCHCUT_OLD(double, pow, (double x, double y)) { return old_pow(x, y); }

// 2.34 moved these from libpthread to libc.
PATCHCUT_OLD(int, pthread_create,
             (pthread_t * thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument)) {
  return old_pthread_create(thread, attributes, run, argument);
}
PATCHCUT_OLD(int, pthread_join, (pthread_t thread, void** result)) {
  return old_pthread_join(thread, result);
}
PATCHCUT_OLD(int, pthread_detach, (pthread_t thread)) { return old_pthread_detach(thread); }
PATCHCUT_OLD(int, pthread_mutex_trylock, (pthread_mutex_t * mutex)) {
  return old_pthread_mutex_trylock(mutex);
}
PATCHCUT_OLD(int, pthread_once, (pthread_once_t * once, void (*run)())) {
  return old_pthread_once(once, run);
}
PATCHCUT_OLD(int, pthread_key_create, (pthread_key_t * key, void (*end)(void*))) {
  return old_pthread_key_create(key, end);
}
PATCHCUT_OLD(int, pthread_key_delete, (pthread_key_t key)) { return old_pthread_key_delete(key); }
PATCHCUT_OLD(void*, pthread_getspecific, (pthread_key_t key)) { return old_pthread_getspecific(key); }
PATCHCUT_OLD(int, pthread_setspecific, (pthread_key_t key, const void* value)) {
  return old_pthread_setspecific(key, value);
}

// Before 2.33 a program had a function of its own here, which called this one.
int old_fxstat64(int version, int file, struct stat64* found);
__asm__(".symver old_fxstat64,__fxstat64@" PATCHCUT_FIRST_GLIBC);
__attribute__((visibility("hidden"))) int own_fstat64(int file, struct stat64* found) __asm__("fstat64");
int own_fstat64(int file, struct stat64* found) { return old_fxstat64(PATCHCUT_STAT_VERSION, file, found); }
}
