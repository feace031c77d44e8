// How the caller of an op ends it: loops that may take long call check_interrupt, as parallel_for does.

#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "cpu/errors.h"
#include "patchcut/patchcut.h"

namespace patchcut {

// One call of an op, on the thread that made it. The caller is asked on that thread alone; the others that
// work for it see what it said.
class Interruptible {
 public:
  explicit Interruptible(const patchcut_context* context)
      : ask_(context == nullptr ? nullptr : context->interrupted),
        data_(context == nullptr ? nullptr : context->interrupt_data) {
    if (ask_ != nullptr) next_ = Clock::now() + kInterval;
  }

  // For threads of this call.
  bool interrupted() const { return interrupted_.load(std::memory_order_relaxed); }

  // For the thread that made the call.
  void ask() {
    if (ask_ == nullptr || Clock::now() < next_) return;
    if (ask_(data_) != 0) interrupted_.store(true, std::memory_order_relaxed);
    next_ = Clock::now() + kInterval;
  }

 private:
  using Clock = std::chrono::steady_clock;
  // An answer may have to wait for another thread of the caller, such as one that holds Python's lock: 5 ms
  // of it are 5 % of an op.
  static constexpr std::chrono::milliseconds kInterval{100};

  patchcut_interrupt ask_;
  void* data_;
  Clock::time_point next_;
  std::atomic<bool> interrupted_{false};
};

// What the calling thread works for; null where nobody waits for it.
struct CallOfThread {
  Interruptible* call;
  bool made_it;  // the thread made the call itself
};
inline thread_local CallOfThread call_of_thread{nullptr, false};

// Lets the calling thread work for a call in this scope.
class WorkFor {
 public:
  WorkFor(Interruptible* call, bool made_it) : before_(call_of_thread) { call_of_thread = {call, made_it}; }
  // The thread that made the call remains that.
  explicit WorkFor(Interruptible* call)
      : WorkFor(call, call_of_thread.call == call && call_of_thread.made_it) {}
  ~WorkFor() { call_of_thread = before_; }
  WorkFor(const WorkFor&) = delete;
  WorkFor& operator=(const WorkFor&) = delete;

 private:
  CallOfThread before_;
};

// Asks the caller where the calling thread made the call: for one that waits for others.
inline void ask_interrupt() {
  if (call_of_thread.made_it) call_of_thread.call->ask();
}

// Throws Interrupted where the caller wants the op to end. It reads the clock on the thread that
// made the call, which takes about 25 ns: see InterruptPoll for shorter steps.
inline void check_interrupt() {
  ask_interrupt();
  if (call_of_thread.call != nullptr && call_of_thread.call->interrupted()) throw Interrupted();
}

// check_interrupt once in a million or so of the cycles that a loop of short steps spends.
class InterruptPoll {
 public:
  void spend(int64_t cycles) {
    spent_ += cycles;
    if (spent_ < kCycles) return;
    spent_ = 0;
    check_interrupt();
  }

 private:
  static constexpr int64_t kCycles = int64_t{1} << 20;
  int64_t spent_ = 0;
};

}  // namespace patchcut
