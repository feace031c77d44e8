#include "cpu/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace patchcut {
namespace {

constexpr const char* kNames[] = {"baseline", "avx2", "avx512", "neon"};
#if defined(__aarch64__)
constexpr int32_t kSlowest = static_cast<int32_t>(Isa::neon);
#else
constexpr int32_t kSlowest = static_cast<int32_t>(Isa::baseline);
#endif

#if defined(__x86_64__)
// Compilers before GCC 11 do not know it by name.
bool converts_halves() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

// How many of them, from the slowest, this build holds and this machine can run.
int32_t count_available() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !converts_halves()) return 1;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx512 ? 3 : 2;
#else
  return 1;
#endif
}

Isa find_isa(const std::string& name, const char* what) {
  std::string known;
  for (int32_t i = 0; const char* available = available_isa(i); ++i) {
    if (name == available) return static_cast<Isa>(kSlowest + i);
    known += (i == 0 ? "" : ", ") + std::string(available);
  }
  throw std::invalid_argument("[isa] " + std::string(what) + " must be one of " + known + ", got " + name);
}

constexpr Isa kNotChosen = static_cast<Isa>(-1);
std::atomic<Isa> current{kNotChosen};

}  // namespace

const char* name_of(Isa isa) { return kNames[static_cast<int32_t>(isa)]; }

Isa isa_in_use() {
  Isa isa = current.load(std::memory_order_relaxed);
  if (isa != kNotChosen) return isa;
  const char* name = std::getenv("PATCHCUT_ISA");
  isa = name != nullptr && *name != '\0' ? find_isa(name, "PATCHCUT_ISA")
                                         : static_cast<Isa>(kSlowest + count_available() - 1);
  current.store(isa, std::memory_order_relaxed);
  return isa;
}

const char* available_isa(int32_t index) {
  return index >= 0 && index < count_available() ? kNames[kSlowest + index] : nullptr;
}

void set_isa(const char* name) { current.store(find_isa(name, "isa"), std::memory_order_relaxed); }

}  // namespace patchcut
