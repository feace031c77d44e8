// What DeepStream's nvinfer calls with the outputs of a file of `patchcut export fused --planar`: the regions
// of each frame as instance masks. See config_infer_patchcut.txt.
#include <nvdsinfer_custom_impl.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <vector>

#include "instances.h"

// `patchcut.min_area_patches` of the file, which nvinfer does not hand over.
#ifndef PATCHCUT_MIN_AREA_PATCHES
#define PATCHCUT_MIN_AREA_PATCHES 0.5
#endif

namespace {

const NvDsInferLayerInfo* assignment_among(const std::vector<NvDsInferLayerInfo>& layers) {
  for (const NvDsInferLayerInfo& layer : layers) {
    if (layer.layerName != nullptr && std::strcmp(layer.layerName, "assignment") == 0) return &layer;
  }
  return nullptr;
}

// nvinfer frees the mask with delete[].
NvDsInferInstanceMaskInfo info_of(const Instance& one) {
  NvDsInferInstanceMaskInfo info{};
  info.classId = static_cast<unsigned int>(one.label);
  info.left = one.left;
  info.top = one.top;
  info.width = one.width;
  info.height = one.height;
  info.detectionConfidence = one.confidence;
  info.mask_width = static_cast<unsigned int>(one.width);
  info.mask_height = static_cast<unsigned int>(one.height);
  info.mask_size = static_cast<unsigned int>(sizeof(float) * one.mask.size());
  info.mask = new float[one.mask.size()];
  std::copy(one.mask.begin(), one.mask.end(), info.mask);
  return info;
}

}  // namespace

extern "C" bool NvDsInferParseCustomPatchcut(const std::vector<NvDsInferLayerInfo>& layers,
                                             const NvDsInferNetworkInfo& network,
                                             const NvDsInferParseDetectionParams& params,
                                             std::vector<NvDsInferInstanceMaskInfo>& objects) try {
  const NvDsInferLayerInfo* layer = assignment_among(layers);
  if (layer == nullptr || layer->dataType != FLOAT || layer->inferDims.numDims != 2) {
    throw std::runtime_error(
        "the network has no output `assignment` [rows, labels] float32; export it with "
        "`patchcut export fused --planar`");
  }
  const SizeHw frame{network.height, network.width};
  const AssignmentShape shape =
      shape_of(layer->inferDims.d[0], layer->inferDims.d[1], frame, PATCHCUT_MIN_AREA_PATCHES);
  const auto* assignment = static_cast<const float*>(layer->buffer);
  for (const Instance& one : instances_of(shape, assignment, params.perClassPreclusterThreshold)) {
    objects.push_back(info_of(one));
  }
  return true;
} catch (const std::exception& error) {
  std::fprintf(stderr, "NvDsInferParseCustomPatchcut: %s\n", error.what());
  return false;
}

CHECK_CUSTOM_INSTANCE_MASK_PARSE_FUNC_PROTOTYPE(NvDsInferParseCustomPatchcut);
