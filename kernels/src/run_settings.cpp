#include "c_face.h"
#include "patchcut/isa.h"
#include "patchcut/threads.h"

using namespace patchcut;

patchcut_status patchcut_get_threads(int32_t* count) {
  return guard([&] { *count = get_threads(); });
}

patchcut_status patchcut_set_threads(int32_t count) {
  return guard([&] { set_threads(count); });
}

patchcut_status patchcut_default_threads(const char* root, int32_t* count) {
  return guard([&] { *count = default_threads(root); });
}

const char* patchcut_available_isa(int32_t index) { return available_isa(index); }

patchcut_status patchcut_get_isa(const char** name) {
  return guard([&] { *name = get_isa(); });
}

patchcut_status patchcut_set_isa(const char* name) {
  return guard([&] { set_isa(name); });
}
