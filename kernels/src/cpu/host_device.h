#pragma once

// For functions that kernels on CUDA call too.
#if defined(__CUDACC__)
#define PATCHCUT_HOST_DEVICE __host__ __device__
#else
#define PATCHCUT_HOST_DEVICE
#endif
