// Prints the compute capabilities of this machine's GPUs, such as "87" or "90;120"; nothing where the driver
// does not tell. Ends with 1 where there is no driver. Needs nothing of the CUDA toolkit.

#include <dlfcn.h>

#include <cstdio>

namespace {

constexpr int kMajor = 75, kMinor = 76;  // of CUdevice_attribute

template <class Function>
Function find(void* library, const char* name) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

}  // namespace

int main() {
  void* driver = dlopen("libcuda.so.1", RTLD_NOW);
  if (driver == nullptr) return 1;
  const auto init = find<int (*)(unsigned)>(driver, "cuInit");
  const auto count_devices = find<int (*)(int*)>(driver, "cuDeviceGetCount");
  const auto get_attribute = find<int (*)(int*, int, int)>(driver, "cuDeviceGetAttribute");
  if (init == nullptr || count_devices == nullptr || get_attribute == nullptr || init(0) != 0) return 0;
  int count = 0;
  if (count_devices(&count) != 0) return 0;
  for (int device = 0; device < count; ++device) {
    int major = 0, minor = 0;
    if (get_attribute(&major, kMajor, device) != 0 || get_attribute(&minor, kMinor, device) != 0) continue;
    std::printf("%s%d%d", device == 0 ? "" : ";", major, minor);
  }
  return 0;
}
