// Follows the objects of a folder of frames, without Python.
//
//   patchcut export fused default --out model.onnx --frame 480x640 --features
//   track model.onnx frames
//
// The folder's PPM files, in the order of their names, are one video. Prints a line per region with the id of
// its track, and with --ids writes each frame's track ids, [height, width] int32, to stdout.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "frames.h"
#include "model.h"
#include "regions.h"
#include "tracks.h"

namespace {

std::vector<std::filesystem::path> frames_of(const std::string& folder) {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".ppm") found.push_back(entry.path());
  }
  if (found.empty()) throw std::runtime_error(folder + " holds no PPM files");
  std::sort(found.begin(), found.end());
  return found;
}

// [height, width]: the track id of each pixel's region, 0 where there is none.
void write_ids(const AssignmentShape& shape, const Regions& regions, const std::vector<int32_t>& ids) {
  std::vector<int32_t> table{0};
  table.insert(table.end(), ids.begin(), ids.end());
  std::vector<int32_t> map(regions.ids.size());
  check(patchcut_relabel(regions.ids.data(), 1, shape.frame.height, shape.frame.width, table.data(),
                         static_cast<int64_t>(table.size()), map.data(), nullptr));
  std::fwrite(map.data(), sizeof(int32_t), map.size(), stdout);
}

}  // namespace

int main(int count, char** words) try {
  const bool write = count > 1 && std::string(words[1]) == "--ids";
  if (count != 3 + write) {
    std::fprintf(stderr, "usage: track [--ids] MODEL.onnx FOLDER\n");
    return 2;
  }
  Model model(words[1 + write]);
  if (model.dim() == 0) throw std::runtime_error("the model has no features; export it with --features");
  const AssignmentShape& shape = model.shape();
  Tracks tracks;
  Regions regions;
  for (const std::filesystem::path& path : frames_of(words[2 + write])) {
    const float* assignment = model.assign(read_ppm(path.string(), model.bgr()));
    find(shape, tracks.steady(shape, assignment, model.features(), model.dim()), regions);
    const std::vector<int32_t>& ids = tracks.follow(shape, regions);
    if (write) write_ids(shape, regions, ids);
    for (size_t i = 0; i < ids.size(); ++i) {
      const Region& region = regions.found[i];
      const float* box = region.box_xyxy;
      std::fprintf(write ? stderr : stdout, "%s track %d label %d, %lld pixels, box %g %g %g %g\n",
                   path.filename().c_str(), ids[i], region.label, static_cast<long long>(region.area), box[0],
                   box[1], box[2], box[3]);
    }
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "track: %s\n", error.what());
  return 1;
}
