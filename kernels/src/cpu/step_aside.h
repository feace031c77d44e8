// A worker that was woken on its caller's core goes to another one.

#pragma once

#if defined(__linux__)
#include <sched.h>
#endif

namespace patchcut {

#if defined(__linux__)

inline int current_core() { return sched_getcpu(); }

// One for each worker thread. Small virtual machines often wake a thread on its waker's core and leave it
// there for milliseconds while the other cores idle (99 of 100 wakes on two cores), longer than most ops
// take.
class StepAside {
 public:
  // Leaves `busy`, if that is where the thread runs and it may run elsewhere.
  void leave(int busy) {
    if (busy < 0 || current_core() != busy) return;
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    if (!moved_ || !CPU_EQUAL(&allowed, &chosen_)) home_ = allowed;  // set by others, such as taskset
    chosen_ = home_;
    CPU_CLR(busy, &chosen_);
    moved_ = CPU_COUNT(&chosen_) > 0 && sched_setaffinity(0, sizeof chosen_, &chosen_) == 0;
  }

 private:
  cpu_set_t home_;    // where the thread may run
  cpu_set_t chosen_;  // that without the core left last
  bool moved_ = false;
};

#else

inline int current_core() { return -1; }

class StepAside {
 public:
  void leave(int) {}
};

#endif

}  // namespace patchcut
