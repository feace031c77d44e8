// Not NVIDIA's: what the parser of docs/examples/cpp/deepstream takes of the header of this name, written
// from DeepStream's documentation, so that it can be compiled and called where there is no DeepStream.
#pragma once

#include <vector>

typedef enum { FLOAT = 0, HALF = 1, INT8 = 2, INT32 = 3 } NvDsInferDataType;

typedef struct {
  unsigned int numDims;
  unsigned int d[8];
  unsigned int numElements;
} NvDsInferDims;

typedef struct {
  NvDsInferDataType dataType;
  union {
    NvDsInferDims inferDims;
    NvDsInferDims dims;
  };
  int bindingIndex;
  const char* layerName;
  void* buffer;
  int isInput;
} NvDsInferLayerInfo;

typedef struct {
  unsigned int width, height, channels;
} NvDsInferNetworkInfo;

typedef struct {
  unsigned int numClassesConfigured;
  std::vector<float> perClassPreclusterThreshold;
  std::vector<float> perClassPostclusterThreshold;
} NvDsInferParseDetectionParams;

typedef struct {
  unsigned int classId;
  float left, top, width, height;
  float detectionConfidence;
  float* mask;
  unsigned int mask_width, mask_height, mask_size;
} NvDsInferInstanceMaskInfo;

typedef bool (*NvDsInferInstanceMaskParseCustomFunc)(const std::vector<NvDsInferLayerInfo>& outputLayersInfo,
                                                     const NvDsInferNetworkInfo& networkInfo,
                                                     const NvDsInferParseDetectionParams& detectionParams,
                                                     std::vector<NvDsInferInstanceMaskInfo>& objectList);

#define CHECK_CUSTOM_INSTANCE_MASK_PARSE_FUNC_PROTOTYPE(function)          \
  static NvDsInferInstanceMaskParseCustomFunc check_##function = function; \
  static_assert(sizeof(check_##function) > 0, "")
