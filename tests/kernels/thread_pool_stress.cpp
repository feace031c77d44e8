// Many callers, throwing bodies and changes of the thread count at once, for ThreadSanitizer.

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <thread>
#include <vector>

#include "cpu/thread_pool.h"
#include "cpu/threads.h"

namespace {

// Above the grain of parallel_for, so that the pool is used.
constexpr int64_t kItems = 4096;
constexpr int64_t kCyclesPerItem = 3000;
constexpr int kCallers = 4;

std::atomic<int64_t> finished{0};

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "thread_pool_stress: %s\n", what);
  std::_Exit(1);
}

// Every item once, also where a body calls parallel_for itself.
void fill(bool nested) {
  std::vector<int> items(kItems, 0);
  patchcut::parallel_for(kItems, kCyclesPerItem, [&](int64_t begin, int64_t end) {
    if (!nested) {
      for (int64_t i = begin; i < end; ++i) ++items[i];
      return;
    }
    patchcut::parallel_for(end - begin, kCyclesPerItem, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) ++items[begin + i];
    });
  });
  for (const int item : items) require(item == 1, "an item was not computed exactly once");
}

// Every chunk from `at` on throws, several of them at once.
void throw_in_body(int64_t at) {
  bool caught = false;
  try {
    patchcut::parallel_for(kItems, kCyclesPerItem, [&](int64_t begin, int64_t end) {
      if (end > at) throw std::runtime_error("expected");
    });
  } catch (const std::runtime_error&) {
    caught = true;
  }
  require(caught, "an exception of a body was lost");
}

void call(int caller, std::chrono::steady_clock::time_point until) {
  for (int64_t round = caller; std::chrono::steady_clock::now() < until; ++round) {
    fill(round % 3 == 0);
    if (round % 4 == 0) throw_in_body(round * 977 % kItems);
    require(patchcut::get_threads() >= 1, "there are no threads");
    finished.fetch_add(1);
  }
}

void change_threads(std::chrono::steady_clock::time_point until) {
  for (int count = 1; std::chrono::steady_clock::now() < until; count = count % 5 + 1) {
    patchcut::set_threads(count);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int seconds = argc > 1 ? std::atoi(argv[1]) : 5;
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  std::vector<std::thread> threads;
  for (int caller = 0; caller < kCallers; ++caller) threads.emplace_back(call, caller, until);
  threads.emplace_back(change_threads, until);
  for (std::thread& thread : threads) thread.join();
  require(finished > kCallers, "no progress");
  patchcut::set_threads(1);
  std::printf("%lld rounds\n", static_cast<long long>(finished));
}
