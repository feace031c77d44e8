// One ONNX file of `patchcut export fused --frame HxW`, from a frame to the assignment of its patches.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

struct SizeHw {
  int64_t height = 0, width = 0;
  bool operator!=(const SizeHw& other) const { return height != other.height || width != other.width; }
};

// [height, width, 3] uint8, in the order that the model says.
struct Frame {
  SizeHw size;
  std::vector<uint8_t> pixels;
};

class Model {
 public:
  explicit Model(const char* path) : session_(env_, path, options()) {
    const std::vector<int64_t> image = shape(session_.GetInputTypeInfo(0));
    if (image.size() != 4 || image[3] != 3) throw std::runtime_error("not a model of patchcut export fused");
    frame_ = {image[1], image[2]};
    grid_ = pair(property("patchcut.grid_hw"));
    min_area_patches_ = std::strtod(property("patchcut.min_area_patches").c_str(), nullptr);
    bgr_ = property("patchcut.color") == "bgr";
  }

  SizeHw frame() const { return frame_; }
  SizeHw grid() const { return grid_; }
  double min_area_patches() const { return min_area_patches_; }
  bool bgr() const { return bgr_; }
  int64_t labels() const { return labels_; }

  // [grid.height * grid.width, labels] float32, in the session's memory until the next call.
  const float* assign(const Frame& frame) {
    if (frame.size != frame_) {
      throw std::runtime_error("the model takes frames of " + text(frame_) + ", got " + text(frame.size));
    }
    const std::array<int64_t, 4> shape{1, frame_.height, frame_.width, 3};
    // Only read: the session's face has no word for that.
    const Ort::Value image = Ort::Value::CreateTensor<uint8_t>(
        memory_, const_cast<uint8_t*>(frame.pixels.data()), frame.pixels.size(), shape.data(), shape.size());
    const char* const inputs[] = {"image"};
    const char* const outputs[] = {"assignment"};
    result_ = session_.Run(Ort::RunOptions{nullptr}, inputs, &image, 1, outputs, 1);
    labels_ = result_.at(0).GetTensorTypeAndShapeInfo().GetShape().back();
    return result_.at(0).GetTensorData<float>();
  }

 private:
  static Ort::SessionOptions options() {
    Ort::SessionOptions options;
    options.AddConfigEntry("session.x64quantprecision", "1");  // int8 on x86 CPUs without VNNI
    return options;
  }

  static std::vector<int64_t> shape(const Ort::TypeInfo& info) {
    return info.GetTensorTypeAndShapeInfo().GetShape();
  }

  std::string property(const char* name) const {
    Ort::AllocatorWithDefaultOptions allocator;
    const Ort::AllocatedStringPtr value =
        session_.GetModelMetadata().LookupCustomMetadataMapAllocated(name, allocator);
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
  Ort::Session session_;
  std::vector<Ort::Value> result_;
  SizeHw frame_, grid_;
  double min_area_patches_ = 0;
  int64_t labels_ = 0;
  bool bgr_ = false;
};
