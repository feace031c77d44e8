// One ONNX file of `patchcut export fused --frame HxW`, from a frame to the assignment of its patches.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "frames.h"
#include "regions.h"

class Model {
 public:
  explicit Model(const char* path) : session_(env_, path, options()) {
    const std::vector<int64_t> image = shape(session_.GetInputTypeInfo(0));
    if (image.size() != 4 || image[3] != 3) throw std::runtime_error("not a model of patchcut export fused");
    shape_.frame = {image[1], image[2]};
    shape_.grid = pair(property("patchcut.grid_hw"));
    shape_.labels = shape(session_.GetOutputTypeInfo(0)).back();
    shape_.min_area_patches = std::strtod(property("patchcut.min_area_patches").c_str(), nullptr);
    for (size_t i = 1; i < session_.GetOutputCount(); ++i) {
      const Ort::AllocatedStringPtr name = session_.GetOutputNameAllocated(i, allocator_);
      if (std::string(name.get()) == "features") dim_ = shape(session_.GetOutputTypeInfo(i)).back();
    }
    bgr_ = property("patchcut.color") == "bgr";
  }

  const AssignmentShape& shape() const { return shape_; }
  bool bgr() const { return bgr_; }
  // Of the features of a patch; 0 of a model that was exported without --features.
  int64_t dim() const { return dim_; }

  // [grid.height * grid.width, labels] float32, in the session's memory until the next call.
  const float* assign(const Frame& frame) {
    if (frame.size != shape_.frame) {
      const std::string wanted = text(shape_.frame);
      throw std::runtime_error("the model takes frames of " + wanted + ", got " + text(frame.size));
    }
    const std::array<int64_t, 4> shape{1, frame.size.height, frame.size.width, 3};
    // Only read: the session's face has no word for that.
    const Ort::Value image = Ort::Value::CreateTensor<uint8_t>(
        memory_, const_cast<uint8_t*>(frame.pixels.data()), frame.pixels.size(), shape.data(), shape.size());
    const char* const inputs[] = {"image"};
    const char* const outputs[] = {"assignment", "features"};
    result_ = session_.Run(Ort::RunOptions{nullptr}, inputs, &image, 1, outputs, dim_ > 0 ? 2 : 1);
    return result_.at(0).GetTensorData<float>();
  }

  // Of the frame that was assigned last: [grid.height * grid.width, dim()] float32.
  const float* features() const { return result_.at(1).GetTensorData<float>(); }

 private:
  static Ort::SessionOptions options() {
    Ort::SessionOptions options;
    options.AddConfigEntry("session.x64quantprecision", "1");  // int8 on x86 CPUs without VNNI
    return options;
  }

  static std::vector<int64_t> shape(const Ort::TypeInfo& info) {
    return info.GetTensorTypeAndShapeInfo().GetShape();
  }

  std::string property(const char* name) {
    const Ort::AllocatedStringPtr value =
        session_.GetModelMetadata().LookupCustomMetadataMapAllocated(name, allocator_);
    if (!value) throw std::runtime_error(std::string("the model does not say ") + name);
    return value.get();
  }

  // Of "[16, 16]".
  static SizeHw pair(const std::string& json) {
    char* end = nullptr;
    const int64_t height = std::strtoll(json.c_str() + 1, &end, 10);
    return {height, std::strtoll(end + 1, nullptr, 10)};
  }

  static std::string text(SizeHw size) {
    return std::to_string(size.height) + "x" + std::to_string(size.width);
  }

  Ort::Env env_{ORT_LOGGING_LEVEL_WARNING, "patchcut"};
  Ort::MemoryInfo memory_ = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  Ort::AllocatorWithDefaultOptions allocator_;
  Ort::Session session_;
  std::vector<Ort::Value> result_;
  AssignmentShape shape_;
  int64_t dim_ = 0;
  bool bgr_ = false;
};
