// Calls the parser as nvinfer would: call_parser NAME HEIGHT WIDTH ROWS LABELS THRESHOLD, the assignment on
// stdin. Prints a line per object, and writes its mask to stderr as it is.
#include <nvdsinfer_custom_impl.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

extern "C" bool NvDsInferParseCustomPatchcut(const std::vector<NvDsInferLayerInfo>&,
                                             const NvDsInferNetworkInfo&,
                                             const NvDsInferParseDetectionParams&,
                                             std::vector<NvDsInferInstanceMaskInfo>&);

int main(int, char** words) {
  const auto number = [&](int i) { return static_cast<unsigned>(std::atoi(words[i])); };
  std::vector<float> assignment(number(4) * number(5));
  if (std::fread(assignment.data(), sizeof(float), assignment.size(), stdin) != assignment.size()) return 3;
  NvDsInferLayerInfo layer{};
  layer.dataType = FLOAT;
  layer.inferDims = {2, {number(4), number(5)}, number(4) * number(5)};
  layer.layerName = words[1];
  layer.buffer = assignment.data();
  NvDsInferParseDetectionParams params{};
  params.numClassesConfigured = number(5);
  params.perClassPreclusterThreshold.assign(number(5), static_cast<float>(std::atof(words[6])));
  std::vector<NvDsInferInstanceMaskInfo> objects;
  if (!NvDsInferParseCustomPatchcut({layer}, {number(3), number(2), 3}, params, objects)) return 1;
  for (const NvDsInferInstanceMaskInfo& one : objects) {
    std::printf("%u %g %g %g %g %.6f %u %u\n", one.classId, one.left, one.top, one.width, one.height,
                one.detectionConfidence, one.mask_width, one.mask_height);
    std::fwrite(one.mask, 1, one.mask_size, stderr);
    delete[] one.mask;
  }
  return 0;
}
