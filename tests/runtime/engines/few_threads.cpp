// Loaded before a program (LD_PRELOAD), it lets $THREAD_LIMIT threads run beside the first one, as a process
// limit does: root, and who runs tests in containers, has no limit of processes.
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include <atomic>

namespace {

std::atomic<int> running{0};

struct Task {
  void* (*function)(void*);
  void* argument;
};

void* run(void* given) {
  const Task task = *static_cast<Task*>(given);
  delete static_cast<Task*>(given);
  void* result = task.function(task.argument);
  --running;
  return result;
}

}  // namespace

extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*function)(void*),
                              void* argument) {
  using Create = int(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto create = reinterpret_cast<Create*>(dlsym(RTLD_NEXT, "pthread_create"));
  const char* limit = getenv("THREAD_LIMIT");
  if (limit != nullptr && running >= atoi(limit)) return EAGAIN;
  ++running;
  Task* task = new Task{function, argument};
  const int status = create(thread, attributes, run, task);
  if (status != 0) {
    --running;
    delete task;
  }
  return status;
}
