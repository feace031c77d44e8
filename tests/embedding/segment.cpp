// Patch features of one picture to its regions, through the C ABI alone.
//
//   segment FOLDER GRID_HEIGHT GRID_WIDTH HEIGHT WIDTH THRESHOLD NORMALIZE TEMPERATURE
//
// FOLDER holds features.npy [n, d] and the tensors of a graph head, named as in a bundle. What each op gives
// is written beside them as bare values; the regions are printed.
#include <patchcut/patchcut.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <memory>
#include <utility>

#include "array_file.h"

namespace {

void check(patchcut_status status) {
  if (status != PATCHCUT_OK) throw std::runtime_error(patchcut_last_error());
}

struct DestroyGcn {
  void operator()(patchcut_gcn* gcn) const { patchcut_gcn_destroy(gcn); }
};
using Gcn = std::unique_ptr<patchcut_gcn, DestroyGcn>;

struct Head {
  Gcn gcn;
  int64_t k;
};

// The tensors of a folder, kept while the layers point into them.
class Tensors {
 public:
  explicit Tensors(std::string folder) : folder_(std::move(folder)) {}

  // Null where there is no such file.
  const FloatArray* find(const std::string& name) {
    const std::string path = folder_ + "/" + name + ".npy";
    if (!std::ifstream(path)) return nullptr;
    return &kept_.emplace_back(read_npy(path));
  }
  const FloatArray& get(const std::string& name) {
    const FloatArray* found = find(name);
    if (found == nullptr) throw std::runtime_error("there is no " + name + ".npy in " + folder_);
    return *found;
  }

 private:
  std::string folder_;
  std::deque<FloatArray> kept_;
};

std::vector<patchcut_gcn_layer> graph_layers(Tensors& tensors) {
  std::vector<patchcut_gcn_layer> layers;
  while (true) {
    const std::string name = "gcn." + std::to_string(layers.size());
    const FloatArray* theta = tensors.find(name + ".theta");
    if (theta == nullptr) return layers;
    const FloatArray* root = tensors.find(name + ".root");
    layers.push_back({theta->values.data(), root == nullptr ? nullptr : root->values.data(),
                      tensors.get(name + ".bias").values.data(), theta->shape.at(0), theta->shape.at(1)});
  }
}

std::vector<patchcut_linear_layer> linear_layers(Tensors& tensors) {
  std::vector<patchcut_linear_layer> layers;
  while (true) {
    const std::string name = "mlp." + std::to_string(layers.size());
    const FloatArray* weight = tensors.find(name + ".weight");
    if (weight == nullptr) return layers;
    layers.push_back({weight->values.data(), tensors.get(name + ".bias").values.data(), weight->shape.at(0),
                      weight->shape.at(1)});
  }
}

Head read_head(const std::string& folder, bool normalize, float temperature) {
  Tensors tensors(folder);
  const std::vector<patchcut_gcn_layer> layers = graph_layers(tensors);
  const std::vector<patchcut_linear_layer> mlp = linear_layers(tensors);
  const FloatArray& shift = tensors.get("shift");
  patchcut_gcn_weights weights{};
  weights.normalize = normalize;
  weights.d = shift.shape.at(0);
  weights.shift = shift.values.data();
  weights.scale = tensors.get("scale").values.data();
  weights.layers = layers.data();
  weights.layer_count = static_cast<int64_t>(layers.size());
  weights.mlp = mlp.data();
  weights.mlp_count = static_cast<int64_t>(mlp.size());
  weights.temperature = temperature;
  patchcut_gcn* gcn = nullptr;
  check(patchcut_gcn_create(&weights, &gcn, nullptr));
  return {Gcn(gcn), mlp.back().outputs};
}

std::vector<float> assign(const FloatArray& features, float threshold, const Head& head) {
  const int64_t n = features.shape.at(0), d = features.shape.at(1);
  patchcut_affinity_params params = PATCHCUT_AFFINITY_DEFAULTS;
  params.threshold = threshold;
  std::vector<float> affinity(n * n), degrees(n), assignment(n * head.k);
  check(patchcut_affinity(features.values.data(), PATCHCUT_FLOAT32, 1, n, d, &params, affinity.data(),
                          PATCHCUT_FLOAT32, degrees.data(), nullptr));
  check(patchcut_gcn_forward(features.values.data(), PATCHCUT_FLOAT32, affinity.data(), PATCHCUT_FLOAT32,
                             degrees.data(), 1, n, head.gcn.get(), assignment.data(), nullptr));
  return assignment;
}

void cluster(const std::string& folder, const FloatArray& features) {
  const int64_t n = features.shape.at(0), d = features.shape.at(1), k = 8;
  const patchcut_kmeans_params params = PATCHCUT_KMEANS_DEFAULTS;
  std::vector<int32_t> labels(n);
  std::vector<float> centroids(k * d), inertia(1);
  check(patchcut_kmeans(features.values.data(), PATCHCUT_FLOAT32, 1, n, d, k, nullptr, &params, labels.data(),
                        centroids.data(), inertia.data(), nullptr));
  write_values(folder + "/clusters.bin", labels);
  write_values(folder + "/centroids.bin", centroids);
}

struct SizeHw {
  int64_t height, width;
};

void find_regions(const std::string& folder, const std::vector<float>& assignment, SizeHw grid, int64_t k,
                  SizeHw size) {
  const int64_t pixels = size.height * size.width;
  std::vector<int32_t> labels(pixels), ids(pixels);
  std::vector<float> confidence(pixels);
  check(patchcut_upsample_argmax(assignment.data(), 1, grid.height, grid.width, k, size.height, size.width,
                                 labels.data(), confidence.data(), nullptr));
  int32_t count = 0;
  check(patchcut_connected_components(labels.data(), 1, size.height, size.width, 8, 1, ids.data(), nullptr,
                                      &count, nullptr));
  std::vector<int64_t> area(count);
  std::vector<int32_t> label(count);
  std::vector<float> boxes_xyxy(4 * count), mean_confidence(count);
  check(patchcut_region_stats(ids.data(), labels.data(), confidence.data(), 1, size.height, size.width, count,
                              area.data(), boxes_xyxy.data(), mean_confidence.data(), label.data(), nullptr));
  write_values(folder + "/assignment.bin", assignment);
  write_values(folder + "/labels.bin", labels);
  write_values(folder + "/confidence.bin", confidence);
  write_values(folder + "/ids.bin", ids);
  write_values(folder + "/mean_confidence.bin", mean_confidence);
  for (int32_t i = 0; i < count; ++i) {
    const float* box = &boxes_xyxy[4 * i];
    std::printf("region %d: label %d, %lld pixels, %g %g %g %g\n", i + 1, label[i],
                static_cast<long long>(area[i]), box[0], box[1], box[2], box[3]);
  }
}

// Statuses and texts of what the library refuses; the program goes on.
void show_errors(const FloatArray& features, const Head& head) {
  std::vector<float> assignment(features.values.size());
  std::vector<int32_t> labels(16);
  const auto show = [](patchcut_status status) {
    std::printf("status %d: %s\n", status, patchcut_last_error());
  };
  show(patchcut_gcn_forward(features.values.data(), PATCHCUT_FLOAT32, nullptr, PATCHCUT_FLOAT32, nullptr, 1,
                            -4, head.gcn.get(), assignment.data(), nullptr));
  show(patchcut_upsample_argmax(assignment.data(), 1, 2, 2, 0, 4, 4, labels.data(), nullptr, nullptr));
  const patchcut_context cuda{PATCHCUT_CUDA, 1000, nullptr, nullptr, 0, nullptr, nullptr};
  show(patchcut_upsample_argmax(assignment.data(), 1, 2, 2, 1, 4, 4, labels.data(), nullptr, &cuda));
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 9) {
    throw std::runtime_error(
        "usage: segment FOLDER GRID_HEIGHT GRID_WIDTH HEIGHT WIDTH THRESHOLD NORMALIZE TEMPERATURE");
  }
  const std::string folder = argv[1];
  const SizeHw grid{std::atoll(argv[2]), std::atoll(argv[3])}, size{std::atoll(argv[4]), std::atoll(argv[5])};
  const FloatArray features = read_npy(folder + "/features.npy");
  const Head head = read_head(folder, std::atoi(argv[7]) != 0, std::strtof(argv[8], nullptr));
  std::printf("patchcut %s\n", patchcut_version());
  cluster(folder, features);
  find_regions(folder, assign(features, std::strtof(argv[6], nullptr), head), grid, head.k, size);
  show_errors(features, head);
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
