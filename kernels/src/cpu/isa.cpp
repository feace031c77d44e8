#include "cpu/isa.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <vector>

#include "cpu/simd.h"

namespace patchcut {

namespace baseline {
extern const SimdTable table;
}
#if defined(__x86_64__)
namespace avx2 {
extern const SimdTable table;
}
namespace avx512 {
extern const SimdTable table;
}
#endif

namespace {

std::vector<const SimdTable*> available_tables() {
  std::vector<const SimdTable*> tables{&baseline::table};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    tables.push_back(&avx2::table);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      tables.push_back(&avx512::table);
    }
  }
#endif
  return tables;
}

const SimdTable* find_table(const std::string& name, const char* what) {
  std::string known;
  for (const SimdTable* table : available_tables()) {
    if (name == table->name) return table;
    known += (known.empty() ? "" : ", ") + std::string(table->name);
  }
  throw std::invalid_argument("[isa] " + std::string(what) + " must be one of " + known + ", got " + name);
}

std::atomic<const SimdTable*> current_table{nullptr};

}  // namespace

const SimdTable& simd() {
  const SimdTable* table = current_table.load(std::memory_order_acquire);
  if (table != nullptr) return *table;
  const char* name = std::getenv("PATCHCUT_ISA");
  table = name != nullptr && *name != '\0' ? find_table(name, "PATCHCUT_ISA") : available_tables().back();
  current_table.store(table, std::memory_order_release);
  return *table;
}

const char* available_isa(int32_t index) {
  const std::vector<const SimdTable*> tables = available_tables();
  const bool known = index >= 0 && static_cast<size_t>(index) < tables.size();
  return known ? tables[static_cast<size_t>(index)]->name : nullptr;
}

const char* get_isa() { return simd().name; }

void set_isa(const std::string& name) {
  current_table.store(find_table(name, "isa"), std::memory_order_release);
}

}  // namespace patchcut
