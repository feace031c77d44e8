// Kernels that are wrong, one for each thing that the host layer must find, and one that is right: the
// argument says which to run. Prints what the launch returned and what the kernel wrote.

#include <cuda_runtime.h>

#include <cstdio>
#include <map>
#include <string>

namespace {

constexpr unsigned kAll = 0xffffffffu;

float* shared_floats(int count) {
  static const char key = 0;
  return static_cast<float*>(host_cuda::shared_memory(&key, count * sizeof(float), alignof(float)));
}

int thread() { return static_cast<int>(threadIdx.x); }

// Sums of 64 threads by shuffles and shared memory: what the functions of warps and blocks give.
void correct(float* out) {
  float* sums = shared_floats(2);
  float value = static_cast<float>(thread());
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kAll, value, lanes);
  if (thread() % 32 == 0) sums[thread() / 32] = value;
  __syncthreads();
  const float total = sums[0] + sums[1];
  const unsigned odd = __ballot_sync(kAll, thread() % 2);
  const float left = __shfl_up_sync(kAll, static_cast<float>(thread()), 1);
  const int equal = __popc(__match_any_sync(kAll, thread() % 4));
  const int counted = __syncthreads_count(thread() < 5);
  if (thread() == 40) {
    out[0] = total;
    out[1] = static_cast<float>(odd == 0xaaaaaaaau);
    out[2] = left;
    out[3] = static_cast<float>(equal);
    out[4] = static_cast<float>(counted);
    out[5] = static_cast<float>(__all_sync(1u << 8, 1) + __any_sync(1u << 8, 0));
  }
}

void barrier_that_some_miss(float* out) {
  if (thread() < 40) __syncthreads();
  out[0] = 1.0f;
}

void barriers_in_two_places(float* out) {
  if (thread() < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[0] = 1.0f;
}

void shuffle_that_a_lane_misses(float* out) {
  if (thread() % 32 == 7) return;
  out[0] = __shfl_sync(kAll, 1.0f, 0);
}

void shuffle_with_two_masks(float* out) {
  out[0] = __shfl_sync(thread() % 32 < 8 ? kAll : 0xffffff00u, 1.0f, 9);
}

void lane_outside_its_mask(float*) { __syncwarp(0x0000ffffu); }

void warp_against_barrier(float*) {
  if (thread() == 3) {
    __syncthreads();
  } else {
    __syncwarp();
    __syncthreads();
  }
}

void shared_memory_that_nobody_wrote(float* out) {
  const float* values = shared_floats(64);
  if (thread() == 0) out[0] = values[1];
}

void missing_barrier(float* out) {
  float* values = shared_floats(64);
  values[thread()] = 1.0f;
  if (thread() == 0) out[0] = values[63];
}

void too_much_shared_memory(float*) { shared_floats(20000); }

void past_the_end(float* out) { out[8 + thread()] = 1.0f; }

using Kernel = void (*)(float*);

const std::map<std::string, Kernel> kKernels = {
    {"correct", correct},
    {"barrier_that_some_miss", barrier_that_some_miss},
    {"barriers_in_two_places", barriers_in_two_places},
    {"shuffle_that_a_lane_misses", shuffle_that_a_lane_misses},
    {"shuffle_with_two_masks", shuffle_with_two_masks},
    {"lane_outside_its_mask", lane_outside_its_mask},
    {"warp_against_barrier", warp_against_barrier},
    {"shared_memory_that_nobody_wrote", shared_memory_that_nobody_wrote},
    {"missing_barrier", missing_barrier},
    {"too_much_shared_memory", too_much_shared_memory},
    {"past_the_end", past_the_end},
};

}  // namespace

int main(int count, char** arguments) {
  const std::string name = count > 1 ? arguments[1] : "";
  const unsigned threads = name == "partial_warp" ? 40 : 64;
  const Kernel kernel = name == "partial_warp" ? correct : kKernels.at(name);
  void* memory = nullptr;
  cudaMallocAsync(&memory, 8 * sizeof(float), nullptr);
  float* out = static_cast<float*>(memory);
  const cudaError_t status = host_cuda_launch(dim3(1), dim3(threads), nullptr, [=] { kernel(out); });
  std::printf("%s\n", status == cudaSuccess ? "success" : cudaGetErrorString(status));
  for (int i = 0; i < 8; ++i) std::printf("%g ", static_cast<double>(out[i]));
  cudaFreeAsync(memory, nullptr);
}
