// Two kernels for each graph layer, one before and one after all of them. First a warp for each node brings
// its features into shape and takes its degree. A graph layer multiplies h by theta and root at once, and
// then gathers W (h theta), whose epilogue adds the rest and applies the ELU: W is read once a layer. The
// last kernel takes a block of nodes through all linear layers and the softmax.
#include <algorithm>
#include <cstring>
#include <vector>

#include "cuda/device_memory.h"
#include "cuda/gemm.cuh"
#include "cuda/launch.cuh"
#include "cuda/unit_rows.cuh"
#include "nodes/gcn_forward.h"

namespace patchcut {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// In device memory, the pointers too.
struct Layer {
  const float* weight;  // [inputs, outputs]: theta of a graph layer
  const float* root;    // [inputs, outputs], or null
  const float* bias;    // [outputs]
  int inputs;
  int outputs;
};

// Copies everything into one piece of memory that is then sent at once.
class Packer {
 public:
  // Offset of a copy; 16-byte aligned, so that four neighbours can be read at once.
  size_t add(const void* data, size_t bytes) {
    const size_t at = bytes_.size();
    bytes_.resize(ceil_div<size_t>(at + bytes, 16) * 16);
    std::memcpy(bytes_.data() + at, data, bytes);
    return at;
  }
  size_t add_floats(const float* data, int64_t count) {
    return add(data, static_cast<size_t>(count) * sizeof(float));
  }
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  std::vector<char> bytes_;
};

__device__ __forceinline__ float elu(float x) { return x > 0.0f ? x : expm1f(x); }

template <class T>
__device__ float sum_row(const T* row, int n) {
  float sum = 0.0f;
  for (int j = static_cast<int>(threadIdx.x) % kWarp; j < n; j += kWarp) sum += to_float(row[j]);
  return reduce_warp(sum, Sum());
}

struct Standardize {
  bool normalize;
  const float* shift;  // [d]
  const float* scale;  // [d]
};

// One warp: one node. h [rows, stride] is its features, normalised where asked, less shift, times scale;
// scales [rows] is its (degree + 1)^-1/2, null where there are no graph layers.
template <class T, class Edge>
__global__ void __launch_bounds__(kThreads)
    prepare_kernel(const T* features, const Edge* affinity, const float* degrees, int64_t rows, int n, int d,
                   Standardize standardize, int stride, float* h, float* scales) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const T* source = features + row * d;
  const float2 factors = standardize.normalize ? inverse_norm(source, d) : make_float2(1.0f, 1.0f);
  for (int p = lane; p < stride; p += kWarp) {
    float x = 0.0f;
    if (p < d) {
      x = to_float(source[p]) * factors.x * factors.y;
      x = (x - standardize.shift[p]) * standardize.scale[p];
    }
    h[row * stride + p] = x;
  }
  if (scales == nullptr) return;
  const float degree = degrees != nullptr ? degrees[row] : sum_row(affinity + row * n, n);
  if (lane == 0) scales[row] = 1.0f / sqrtf(degree + 1.0f);
}

// One block: a tile of h @ theta, which becomes messages = that * scales, or of h @ root where blockIdx.z
// is 1.
template <class Tile>
__global__ void __launch_bounds__(kThreads)
    messages_kernel(RowMajor<float> h, DepthMajor<float> theta, DepthMajor<float> root, const float* scales,
                    float* messages, float* from_root) {
  const bool with_root = blockIdx.z == 1;
  const int first_row = static_cast<int>(blockIdx.y) * Tile::kRows;
  const int first_col = static_cast<int>(blockIdx.x) * Tile::kCols;
  float total[Tile::kThreadRows][Tile::kThreadCols];
  multiply_tile<Tile>(h, with_root ? root : theta, first_row, first_col, total);
  const int outputs = theta.rows;
  float* out = with_root ? from_root : messages;
#pragma unroll
  for (int i = 0; i < Tile::kThreadRows; ++i) {
    const int row = first_row + Tile::thread_row() + i;
    const float scale = with_root || row >= h.rows ? 1.0f : scales[row];
#pragma unroll
    for (int j = 0; j < Tile::kThreadCols; ++j) {
      const int col = first_col + Tile::thread_col() + j;
      if (row < h.rows && col < outputs) out[static_cast<int64_t>(row) * outputs + col] = total[i][j] * scale;
    }
  }
}

// One block: a tile of elu((W messages + messages) * scales + from_root + bias) of item blockIdx.z.
template <class Tile, class Edge>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const Edge* affinity, bool aligned, const float* messages, const float* from_root,
                  const float* bias, const float* scales, int n, int outputs, bool messages_aligned,
                  float* out) {
  const int64_t item = blockIdx.z;
  const RowMajor<Edge> edges{affinity + item * n * n, n, n, n, aligned};
  const DepthMajor<float> factor{messages + item * n * outputs, outputs, n, outputs, messages_aligned};
  const int first_row = static_cast<int>(blockIdx.y) * Tile::kRows;
  const int first_col = static_cast<int>(blockIdx.x) * Tile::kCols;
  float total[Tile::kThreadRows][Tile::kThreadCols];
  multiply_tile<Tile>(edges, factor, first_row, first_col, total);
#pragma unroll
  for (int i = 0; i < Tile::kThreadRows; ++i) {
    const int row = first_row + Tile::thread_row() + i;
    if (row >= n) continue;
    const float scale = scales[item * n + row];
#pragma unroll
    for (int j = 0; j < Tile::kThreadCols; ++j) {
      const int col = first_col + Tile::thread_col() + j;
      if (col >= outputs) continue;
      const int64_t at = (item * n + row) * outputs + col;
      float x = (total[i][j] + messages[at]) * scale + bias[col];
      if (from_root != nullptr) x += from_root[at];
      out[at] = elu(x);
    }
  }
}

// Nodes that one block takes through the linear layers, a warp for each in the softmax.
constexpr int kMlpRows = kWarps;

// out [rows, outputs] = elu(in [rows, stride] @ weight + bias), without the ELU for the last layer.
__device__ void linear_layer(const Layer& layer, const float* in, int stride, int rows, bool last,
                             float* out) {
  for (int e = static_cast<int>(threadIdx.x); e < rows * layer.outputs; e += kThreads) {
    const int row = e / layer.outputs;
    const int col = e % layer.outputs;
    float sum = layer.bias[col];
    for (int p = 0; p < layer.inputs; ++p)
      sum += in[row * stride + p] * layer.weight[p * layer.outputs + col];
    out[e] = last ? sum : elu(sum);
  }
}

// A warp: softmax of x * sharpness.
__device__ void softmax_row(float* row, int k, float sharpness) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float largest = row[0];
  for (int c = lane; c < k; c += kWarp) largest = fmaxf(largest, row[c]);
  largest = reduce_warp(largest, Max());
  float total = 0.0f;
  for (int c = lane; c < k; c += kWarp) {
    row[c] = expf((row[c] - largest) * sharpness);
    total += row[c];
  }
  total = reduce_warp(total, Sum());
  for (int c = lane; c < k; c += kWarp) row[c] /= total;
}

// One block: kMlpRows nodes through all linear layers and the softmax. `hidden` has room for two layers of
// every node, [2, rows, width]; only this block reads what it writes there.
__global__ void __launch_bounds__(kThreads)
    mlp_kernel(const Layer* layers, int count, const float* h, int stride, int64_t rows, int width,
               float sharpness, float* hidden, float* assignment) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kMlpRows;
  const int mine = static_cast<int>(min(static_cast<int64_t>(kMlpRows), rows - first));
  const float* in = h + first * stride;
  const int k = layers[count - 1].outputs;
  for (int l = 0; l < count; ++l) {
    const bool last = l + 1 == count;
    float* out = last ? assignment + first * k : hidden + (l % 2 * rows + first) * width;
    linear_layer(layers[l], in, stride, mine, last, out);
    __syncthreads();
    in = out;
    stride = layers[l].outputs;
  }
  const int row = static_cast<int>(threadIdx.x) / kWarp;
  if (row < mine) softmax_row(assignment + (first + row) * k, k, sharpness);
}

}  // namespace

struct CudaGcn {
  CudaGcn(const char* op, size_t bytes) : memory(op, bytes) {}

  DeviceMemory memory;
  bool normalize = false;
  float temperature = 1.0f;
  const float* shift = nullptr;
  const float* scale = nullptr;
  std::vector<Layer> layers;
  std::vector<Layer> mlp;
  const Layer* mlp_on_device = nullptr;
};

namespace {

Layer pack_layer(Packer& packer, const float* weight, const float* root, const float* bias, int64_t inputs,
                 int64_t outputs) {
  // Offsets that become pointers once it is known where the memory lies.
  const auto offset = [&](const float* data, int64_t count) {
    return reinterpret_cast<const float*>(packer.add_floats(data, count));
  };
  return {offset(weight, inputs * outputs), root == nullptr ? nullptr : offset(root, inputs * outputs),
          offset(bias, outputs), static_cast<int>(inputs), static_cast<int>(outputs)};
}

const float* moved(const float* offset, const char* base) {
  return reinterpret_cast<const float*>(base + reinterpret_cast<size_t>(offset));
}

void move_layers(std::vector<Layer>& layers, const char* base) {
  for (Layer& layer : layers) {
    layer.weight = moved(layer.weight, base);
    // The first array packed is `shift`, so that no root has offset 0.
    if (layer.root != nullptr) layer.root = moved(layer.root, base);
    layer.bias = moved(layer.bias, base);
  }
}

struct Job {
  const CudaGcn& weights;
  int64_t batch;
  int64_t n;

  int64_t rows() const { return batch * n; }
};

template <class Edge>
struct Graph {
  const Edge* affinity;
  const float* scales;  // [batch, n]
};

// Large tiles where they are enough for every multiprocessor of a large GPU.
template <class Body>
void with_tile(int64_t rows, int64_t cols, const Body& body) {
  using Large = GemmTile<2, 4>;
  if (ceil_div<int64_t>(rows, Large::kRows) * ceil_div<int64_t>(cols, Large::kCols) >= 128) {
    body(Large());
  } else {
    body(GemmTile<1, 2>());
  }
}

template <class Tile>
dim3 tiles_of(int64_t rows, int64_t cols, int64_t items) {
  return dim3(static_cast<unsigned>(ceil_div<int64_t>(cols, Tile::kCols)),
              static_cast<unsigned>(ceil_div<int64_t>(rows, Tile::kRows)), static_cast<unsigned>(items));
}

template <class Edge>
void graph_layer(const Job& job, const Graph<Edge>& graph, const Layer& layer, const float* h, int64_t stride,
                 float* messages, float* from_root, float* out, CudaQueue& queue) {
  const auto factor = row_major(h, job.rows(), layer.inputs, stride);
  const auto theta = depth_major(layer.weight, layer.inputs, layer.outputs, layer.outputs);
  const bool with_root = layer.root != nullptr;
  const auto root =
      depth_major(with_root ? layer.root : layer.weight, layer.inputs, layer.outputs, layer.outputs);
  with_tile(job.rows(), layer.outputs * (with_root ? 2 : 1), [&](auto tile) {
    using Tile = decltype(tile);
    launch(queue, messages_kernel<Tile>, tiles_of<Tile>(job.rows(), layer.outputs, with_root ? 2 : 1),
           kThreads, factor, theta, root, graph.scales, messages, from_root);
  });
  with_tile(job.rows(), layer.outputs, [&](auto tile) {
    using Tile = decltype(tile);
    launch(queue, gather_kernel<Tile, Edge>, tiles_of<Tile>(job.n, layer.outputs, job.batch), kThreads,
           graph.affinity, rows_are_aligned(graph.affinity, job.n), messages, with_root ? from_root : nullptr,
           layer.bias, graph.scales, static_cast<int>(job.n), layer.outputs,
           rows_are_aligned(messages, layer.outputs), out);
  });
}

int64_t widest(const std::vector<Layer>& layers, size_t count) {
  int64_t width = 0;
  for (size_t l = 0; l < count; ++l) width = std::max<int64_t>(width, layers[l].outputs);
  return width;
}

template <class Edge>
void forward(const Job& job, const Graph<Edge>& graph, float* h, int64_t stride, float* assignment,
             CudaQueue& queue) {
  const CudaGcn& weights = job.weights;
  const int64_t size = job.rows() * widest(weights.layers, weights.layers.size());
  float* messages = queue.take<float>(size);
  float* from_root = queue.take<float>(size);
  float* next[2] = {queue.take<float>(size), queue.take<float>(weights.layers.size() > 1 ? size : 0)};
  for (size_t l = 0; l < weights.layers.size(); ++l) {
    graph_layer(job, graph, weights.layers[l], h, stride, messages, from_root, next[l % 2], queue);
    h = next[l % 2];
    stride = weights.layers[l].outputs;
  }
  const int64_t width = widest(weights.mlp, weights.mlp.size() - 1);
  float* hidden = queue.take<float>(2 * job.rows() * width);
  launch(queue, mlp_kernel, static_cast<unsigned>(ceil_div<int64_t>(job.rows(), kMlpRows)), kThreads,
         weights.mlp_on_device, static_cast<int>(weights.mlp.size()), h, static_cast<int>(stride), job.rows(),
         static_cast<int>(width), 1.0f / weights.temperature, hidden, assignment);
}

}  // namespace

std::shared_ptr<const CudaGcn> upload_gcn(const patchcut_gcn_weights& weights, CudaQueue& queue) {
  Packer packer;
  const size_t shift = packer.add_floats(weights.shift, weights.d);
  const size_t scale = packer.add_floats(weights.scale, weights.d);
  std::vector<Layer> layers;
  std::vector<Layer> mlp;
  for (int64_t l = 0; l < weights.layer_count; ++l) {
    const patchcut_gcn_layer& layer = weights.layers[l];
    layers.push_back(pack_layer(packer, layer.theta, layer.root, layer.bias, layer.inputs, layer.outputs));
  }
  for (int64_t l = 0; l < weights.mlp_count; ++l) {
    const patchcut_linear_layer& layer = weights.mlp[l];
    mlp.push_back(pack_layer(packer, layer.weight, nullptr, layer.bias, layer.inputs, layer.outputs));
  }
  const size_t descriptors = mlp.size() * sizeof(Layer);
  const size_t at = packer.bytes().size();
  const auto gcn = std::make_shared<CudaGcn>(queue.op(), at + descriptors);
  char* base = static_cast<char*>(gcn->memory.data());
  move_layers(layers, base);
  move_layers(mlp, base);
  packer.add(mlp.data(), descriptors);
  check_cuda(
      queue.op(), "cudaMemcpyAsync",
      cudaMemcpyAsync(base, packer.bytes().data(), at + descriptors, cudaMemcpyDefault, queue.stream()));
  check_cuda(queue.op(), "cudaStreamSynchronize", cudaStreamSynchronize(queue.stream()));
  gcn->normalize = weights.normalize != 0;
  gcn->temperature = weights.temperature;
  gcn->shift = reinterpret_cast<const float*>(base + shift);
  gcn->scale = reinterpret_cast<const float*>(base + scale);
  gcn->layers = layers;
  gcn->mlp = mlp;
  gcn->mlp_on_device = reinterpret_cast<const Layer*>(base + at);
  return gcn;
}

void gcn_forward_cuda(const void* features, int32_t dtype, const void* affinity, int32_t affinity_dtype,
                      const float* degrees, int64_t batch, int64_t n, int64_t d, const CudaGcn& weights,
                      float* assignment, CudaQueue& queue) {
  if (batch == 0 || n == 0) return;
  const Job job{weights, batch, n};
  const int64_t stride = ceil_div<int64_t>(d, 4) * 4;
  float* h = queue.take<float>(job.rows() * stride);
  float* scales = queue.take<float>(job.rows());
  const bool with_graph = !weights.layers.empty();
  with_float_type(affinity == nullptr ? PATCHCUT_FLOAT32 : affinity_dtype, [&](auto edge) {
    using Edge = decltype(edge);
    const Graph<Edge> graph{static_cast<const Edge*>(affinity), scales};
    with_float_type(dtype, [&](auto feature) {
      using T = decltype(feature);
      launch(queue, prepare_kernel<T, Edge>, static_cast<unsigned>(ceil_div<int64_t>(job.rows(), kWarps)),
             kThreads, static_cast<const T*>(features), graph.affinity, degrees, job.rows(),
             static_cast<int>(n), static_cast<int>(d),
             Standardize{weights.normalize, weights.shift, weights.scale}, static_cast<int>(stride), h,
             with_graph ? scales : nullptr);
    });
    forward(job, graph, h, stride, assignment, queue);
  });
}

}  // namespace patchcut
