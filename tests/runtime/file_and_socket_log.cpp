// Loaded before a program (LD_PRELOAD), it writes a line to $CALL_LOG for each socket, each connection, each
// host that is looked up, and each path that is opened for writing or made.
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace {

template <typename Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

void log_call(const char* what, const char* detail) {
  const char* log = getenv("CALL_LOG");
  if (log == nullptr) return;
  char line[4200];
  const int length = snprintf(line, sizeof line, "%s %s\n", what, detail != nullptr ? detail : "");
  const int file =
      real<int(const char*, int, ...)>("open")(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) return;
  if (write(file, line, static_cast<size_t>(length)) != length) abort();
  close(file);
}

// Logs a path that is relative to an open folder, as a whole one.
void log_write_at(int folder, const char* path) {
  if (path[0] == '/' || folder == AT_FDCWD) return log_call("write", path);
  char link[64], whole[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
  const ssize_t length = readlink(link, whole, sizeof whole - 1);
  if (length < 0) return log_call("write", path);
  snprintf(whole + length, sizeof whole - static_cast<size_t>(length), "/%s", path);
  log_call("write", whole);
}

bool writes(int flags) { return (flags & (O_WRONLY | O_RDWR | O_CREAT)) != 0; }

const char* family(int domain) { return domain == AF_UNIX ? "local" : "network"; }

}  // namespace

extern "C" {

#define OPEN(NAME)                                                     \
  int NAME(const char* path, int flags, ...) {                         \
    va_list rest;                                                      \
    va_start(rest, flags);                                             \
    const mode_t mode = va_arg(rest, mode_t);                          \
    va_end(rest);                                                      \
    if (writes(flags)) log_call("write", path);                        \
    return real<int(const char*, int, ...)>(#NAME)(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(NAME)                                                                \
  int NAME(int folder, const char* path, int flags, ...) {                          \
    va_list rest;                                                                   \
    va_start(rest, flags);                                                          \
    const mode_t mode = va_arg(rest, mode_t);                                       \
    va_end(rest);                                                                   \
    if (writes(flags)) log_write_at(folder, path);                                  \
    return real<int(int, const char*, int, ...)>(#NAME)(folder, path, flags, mode); \
  }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(NAME)                                                  \
  FILE* NAME(const char* path, const char* mode) {                   \
    if (strpbrk(mode, "wa+") != nullptr) log_call("write", path);    \
    return real<FILE*(const char*, const char*)>(#NAME)(path, mode); \
  }
FOPEN(fopen)
FOPEN(fopen64)

int mkdir(const char* path, mode_t mode) {
  log_call("write", path);
  return real<int(const char*, mode_t)>("mkdir")(path, mode);
}

int mkdirat(int folder, const char* path, mode_t mode) {
  log_write_at(folder, path);
  return real<int(int, const char*, mode_t)>("mkdirat")(folder, path, mode);
}

int socket(int domain, int type, int protocol) {
  log_call("socket", family(domain));
  return real<int(int, int, int)>("socket")(domain, type, protocol);
}

int connect(int socket, const sockaddr* address, socklen_t length) {
  log_call("connect", family(address->sa_family));
  return real<int(int, const sockaddr*, socklen_t)>("connect")(socket, address, length);
}

ssize_t sendto(int socket, const void* data, size_t size, int flags, const sockaddr* address,
               socklen_t length) {
  log_call("sendto", "");
  return real<ssize_t(int, const void*, size_t, int, const sockaddr*, socklen_t)>("sendto")(
      socket, data, size, flags, address, length);
}

int getaddrinfo(const char* host, const char* service, const addrinfo* hints, addrinfo** found) {
  log_call("lookup", host);
  return real<int(const char*, const char*, const addrinfo*, addrinfo**)>("getaddrinfo")(host, service, hints,
                                                                                         found);
}

}  // extern "C"
