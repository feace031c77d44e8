#include "cpu/thread_pool.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cpu/interrupt.h"
#include "cpu/step_aside.h"
#include "cpu/threads.h"

namespace patchcut {
namespace {

constexpr int kMaxThreads = 256;
// About 20 us: ops of one frame follow each other faster than a sleeping thread wakes.
constexpr int kSpins = 1000;

inline void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class ThreadPool {
 public:
  // Starts as many threads as the system allows.
  explicit ThreadPool(int threads) {
    workers_.reserve(threads - 1);
    try {
      while (static_cast<int>(workers_.size()) < threads - 1) workers_.emplace_back([this] { serve(); });
    } catch (const std::exception&) {
    }
  }

  ~ThreadPool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
      posted_.fetch_add(1);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  int threads() const { return 1 + static_cast<int>(workers_.size()); }

  void run(int64_t count, int64_t grain, ParallelBody body, void* context) {
    open(count, std::max(grain, count / (int64_t{8} * threads())), body, context);
    work();
    close();
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  void open(int64_t count, int64_t grain, ParallelBody body, void* context) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      count_ = count;
      grain_ = grain;
      body_ = body;
      context_ = context;
      caller_core_ = current_core();
      next_.store(0, std::memory_order_relaxed);
      open_ = true;
      posted_.fetch_add(1);
    }
    wake_.notify_all();
  }

  // Late wakers find the job closed, so the caller waits only for those already inside.
  void close() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      open_ = false;
    }
    for (int spin = 0; active_.load(std::memory_order_acquire) != 0; ++spin) {
      if (spin < kSpins) {
        pause_core();
      } else {
        ask_interrupt();
        std::this_thread::yield();
      }
    }
  }

  void work() {
    try {
      for (;;) {
        const int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
        if (begin >= count_) return;
        body_(context_, begin, std::min(begin + grain_, count_));
      }
    } catch (...) {
      next_.store(count_, std::memory_order_relaxed);
      std::lock_guard<std::mutex> lock(mutex_);
      error_ = std::current_exception();
    }
  }

  void serve();
  bool join_job(uint64_t* seen, int* caller_core);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> posted_{0};
  std::atomic<int> active_{0};
  std::atomic<int64_t> next_{0};
  int64_t count_ = 0;
  int64_t grain_ = 1;
  ParallelBody body_ = nullptr;
  void* context_ = nullptr;
  int caller_core_ = -1;
  std::exception_ptr error_;
  bool open_ = false;
  std::atomic<bool> stop_{false};
};

thread_local bool inside_parallel = false;

bool ThreadPool::join_job(uint64_t* seen, int* caller_core) {
  std::unique_lock<std::mutex> lock(mutex_);
  wake_.wait(lock, [&] { return posted_.load() != *seen; });
  *seen = posted_.load();
  if (stop_ || !open_) return false;
  active_.fetch_add(1, std::memory_order_relaxed);
  *caller_core = caller_core_;
  return true;
}

void ThreadPool::serve() {
  inside_parallel = true;
  StepAside aside;
  int caller_core = -1;
  for (uint64_t seen = 0; !stop_;) {
    for (int spin = 0; spin < kSpins && posted_.load(std::memory_order_relaxed) == seen; ++spin) pause_core();
    if (!join_job(&seen, &caller_core)) continue;
    aside.leave(caller_core);
    work();
    active_.fetch_sub(1, std::memory_order_release);
  }
}

int threads_at_start() {
  const char* text = std::getenv("PATCHCUT_THREADS");
  if (text == nullptr || *text == '\0') return default_threads();
  char* end = nullptr;
  const long count = std::strtol(text, &end, 10);
  if (*end != '\0' || count < 1 || count > kMaxThreads) {
    throw std::invalid_argument("[threads] PATCHCUT_THREADS must be 1 to 256, got " + std::string(text));
  }
  return static_cast<int>(count);
}

struct Shared {
  // Held while a job runs: a second caller then works alone, which gives the same result.
  std::mutex mutex;
  // A plain pointer, never freed at exit: a worker may outlive static destructors.
  ThreadPool* pool = nullptr;
};

alignas(Shared) unsigned char shared_memory[sizeof(Shared)];
Shared* shared = new (shared_memory) Shared;
// Of the pool, which a fork loses; 0 before the first one.
std::atomic<int> threads_in_use{0};

// A child has none of its parent's threads, and another thread may have held the mutex: both are made anew.
// The old pool is left as it is.
void start_anew() { shared = new (shared_memory) Shared; }

[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, start_anew);

void replace_pool(int threads) {
  ThreadPool* old = std::exchange(shared->pool, new ThreadPool(threads));
  threads_in_use.store(shared->pool->threads());
  delete old;
}

ThreadPool& current_pool() {
  const int threads = threads_in_use.load();
  if (shared->pool == nullptr) replace_pool(threads == 0 ? threads_at_start() : threads);
  return *shared->pool;
}

}  // namespace

void run_parallel(int64_t count, int64_t grain, ParallelBody body, void* context) {
  if (inside_parallel) return body(context, 0, count);
  std::unique_lock<std::mutex> lock(shared->mutex, std::try_to_lock);
  if (!lock) return body(context, 0, count);
  ThreadPool& current = current_pool();
  if (current.threads() == 1) {
    lock.unlock();
    return body(context, 0, count);
  }
  inside_parallel = true;
  struct Leave {
    ~Leave() { inside_parallel = false; }
  } leave;
  current.run(count, grain, body, context);
}

int get_threads() {
  if (const int threads = threads_in_use.load(); threads != 0) return threads;
  std::lock_guard<std::mutex> lock(shared->mutex);
  return current_pool().threads();
}

void set_threads(int count) {
  if (count < 1 || count > kMaxThreads) {
    throw std::invalid_argument("[set_threads] count must be 1 to 256, got " + std::to_string(count));
  }
  std::lock_guard<std::mutex> lock(shared->mutex);
  if (shared->pool == nullptr || shared->pool->threads() != count) replace_pool(count);
}

}  // namespace patchcut
