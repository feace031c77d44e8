// Threads of one program that call at once, and a process that is forked while they do, get what one caller
// gets.
#include <patchcut/patchcut.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int64_t kNodes = 400, kWidth = 64;
constexpr int kCallers = 4, kRounds = 25;

std::vector<float> make_features() {
  std::vector<float> features(kNodes * kWidth);
  for (size_t i = 0; i < features.size(); ++i) features[i] = static_cast<float>((i * 7919) % 1000) - 499.5f;
  return features;
}

std::vector<float> affinity_of(const std::vector<float>& features) {
  std::vector<float> affinity(kNodes * kNodes);
  const patchcut_affinity_params params = PATCHCUT_AFFINITY_DEFAULTS;
  if (patchcut_affinity(features.data(), PATCHCUT_FLOAT32, 1, kNodes, kWidth, &params, affinity.data(),
                        PATCHCUT_FLOAT32, nullptr, nullptr) != PATCHCUT_OK) {
    affinity.clear();
  }
  return affinity;
}

// Each thread's last error is its own.
bool hears_its_own_error(int caller) {
  const std::string count = std::to_string(-1 - caller);
  if (patchcut_set_threads(-1 - caller) != PATCHCUT_INVALID_ARGUMENT) return false;
  std::this_thread::yield();
  return patchcut_last_error() == "[set_threads] count must be 1 to 256, got " + count;
}

// In the child the other callers' threads are gone, and so are the library's.
bool forked_gets(const std::vector<float>& features, const std::vector<float>& want) {
  const pid_t child = fork();
  if (child == 0) _exit(affinity_of(features) == want ? 0 : 1);
  int status = -1;
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

int main() {
  if (patchcut_set_threads(3) != PATCHCUT_OK) return 1;
  const std::vector<float> features = make_features(), want = affinity_of(features);
  std::atomic<int> wrong{want.empty() ? 1 : 0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([&, caller] {
      for (int round = 0; round < kRounds; ++round) {
        if (affinity_of(features) != want || !hears_its_own_error(caller)) ++wrong;
      }
    });
  }
  for (int i = 0; i < 5; ++i) {
    if (!forked_gets(features, want)) ++wrong;
  }
  for (std::thread& caller : callers) caller.join();
  std::printf("%d wrong\n", wrong.load());
  return wrong == 0 ? 0 : 1;
}
