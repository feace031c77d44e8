#include "c_api/c_face.h"
#include "cpu/isa.h"
#include "cpu/threads.h"

using namespace patchcut;

patchcut_status patchcut_get_threads(int32_t* count) {
  return guard([&] {
    require(count != nullptr, "get_threads", "count must not be null");
    *count = get_threads();
  });
}

patchcut_status patchcut_set_threads(int32_t count) {
  return guard([&] { set_threads(count); });
}

patchcut_status patchcut_default_threads(const char* root, int32_t* count) {
  return guard([&] {
    require(root != nullptr, "default_threads", "root must not be null");
    require(count != nullptr, "default_threads", "count must not be null");
    *count = default_threads(root);
  });
}

const char* patchcut_available_isa(int32_t index) {
  const char* name = nullptr;
  static_cast<void>(guard([&] { name = available_isa(index); }));
  return name;
}

patchcut_status patchcut_get_isa(const char** name) {
  return guard([&] {
    require(name != nullptr, "get_isa", "name must not be null");
    *name = name_of(isa_in_use());
  });
}

patchcut_status patchcut_set_isa(const char* name) {
  return guard([&] {
    require(name != nullptr, "set_isa", "name must not be null");
    set_isa(name);
  });
}
