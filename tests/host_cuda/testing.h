// What tests ask of the host layer, and the library of a PATCHCUT_CUDA=HOST build exports for them.
#pragma once

#include <cstdint>

#define HOST_CUDA_API extern "C" __attribute__((visibility("default")))

enum { kUp, kDown, kOnDevice };

// Copies that were done until now: from the host to the device, from the device to the host, and on the
// device; those of graphs at each launch.
HOST_CUDA_API void patchcut_host_cuda_copies(int64_t* counts);

// Calls a function in the order of a stream, and again in each launch where the stream is being captured:
// for what a test has in place of an engine.
HOST_CUDA_API void patchcut_host_cuda_call(void* stream, void (*function)(void));
