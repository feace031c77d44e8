#pragma once

#include <cstdint>

namespace patchcut {

class CudaQueue;

enum class CutGraph {
  kAffinity,     // the data are the weights W
  kThresholded,  // W = floor + (1 - floor) * (S where S > threshold, else 0); S is the cosine of two rows
  kBinary,       // W = 1 where S > threshold, else floor
  kCosine,       // W = S + offset; never stored
};

struct NCutParams {
  CutGraph graph = CutGraph::kThresholded;
  int64_t k = 1;
  float threshold = 0.0f;
  float floor = 1e-5f;
  float offset = 1.0f;
  int64_t iterations = 10;  // products of the graph with a block of k vectors
  uint64_t seed = 0;        // of the block that they start from
};

// The k smallest eigenvalues of (D - W) x = lambda D x, D the row sums of W, without the constant vector's 0.
// Throws std::invalid_argument where the data are not finite or a row sum is negative.
void ncut_cpu(const float* features,  // [n, d]; of kAffinity [n, n], symmetric: half of it is read
              int64_t n, int64_t d, const NCutParams& params,
              float* eigenvalues,  // [k], ascending
              float* vectors,      // [n, k], x' D x = 1, the entry of largest magnitude is positive
              float* residuals);   // [k], |D^-1/2 ((D - W) x - lambda D x)|

// Of a batch; arrays lie on the queue's device. `dtype` is a patchcut_dtype. All of W is read; a node whose
// sum is negative has no edges. Throws std::invalid_argument for more vectors times iterations than 2048.
void ncut_cuda(const void* features,  // [batch, n, d]; of kAffinity [batch, n, n]
               int32_t dtype, int64_t batch, int64_t n, int64_t d, const NCutParams& params,
               float* eigenvalues,  // [batch, k]
               float* vectors,      // [batch, n, k]
               float* residuals,    // [batch, k]
               CudaQueue& queue);

}  // namespace patchcut
