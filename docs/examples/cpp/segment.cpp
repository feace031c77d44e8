// Segments pictures and videos in C++, without Python.
//
//   patchcut export fused default --out model.onnx --frame 512x512
//   segment model.onnx photo.ppm...      with OpenCV also photo.jpg and video.mp4
//
// Prints a line per region, and writes each frame's labels, [height, width] int32, to stdout with --labels.
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>

#include "frames.h"
#include "model.h"
#include "regions.h"

#ifdef WITH_OPENCV
#include <opencv2/imgcodecs.hpp>
#include <opencv2/videoio.hpp>
#endif

namespace {

void show(Model& model, const Frame& frame, const std::string& name, bool labels) {
  static Regions regions;
  find(model.shape(), model.assign(frame), regions);
  if (labels) std::fwrite(regions.labels.data(), sizeof(int32_t), regions.labels.size(), stdout);
  for (const Region& region : regions.found) {
    const float* box = region.box_xyxy;
    std::fprintf(labels ? stderr : stdout, "%s label %d, %lld pixels, box %g %g %g %g, confidence %.3f\n",
                 name.c_str(), region.label, static_cast<long long>(region.area), box[0], box[1], box[2],
                 box[3], region.confidence);
  }
}

#ifdef WITH_OPENCV
Frame copy_of(const cv::Mat& image, bool bgr) {
  const cv::Mat whole = image.isContinuous() ? image : image.clone();
  Frame frame{{whole.rows, whole.cols}, {whole.data, whole.data + whole.total() * whole.elemSize()}};
  if (!bgr) swap_red_and_blue(frame);
  return frame;
}

void show_file(Model& model, const std::string& path, bool labels) {
  const cv::Mat photo = cv::imread(path, cv::IMREAD_COLOR);
  if (!photo.empty()) return show(model, copy_of(photo, model.bgr()), path, labels);
  cv::VideoCapture video(path);
  cv::Mat image;
  int index = 0;
  for (; video.read(image); ++index) {
    show(model, copy_of(image, model.bgr()), path + "#" + std::to_string(index), labels);
  }
  if (index == 0) throw std::runtime_error(path + " is no picture or video that OpenCV reads");
}
#else
void show_file(Model& model, const std::string& path, bool labels) {
  show(model, read_ppm(path, model.bgr()), path, labels);
}
#endif

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

int main(int count, char** words) try {
  const bool labels = count > 1 && std::string(words[1]) == "--labels";
  if (count < 3 + labels) {
    std::fprintf(stderr, "usage: segment [--labels] MODEL.onnx FRAME...\n");
    return 2;
  }
  Model model(words[1 + labels]);
  for (int i = 2 + labels; i < count; ++i) {
    const std::string path = words[i];
    if (ends_with(path, ".ppm")) {
      show(model, read_ppm(path, model.bgr()), path, labels);
    } else {
      show_file(model, path, labels);
    }
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "segment: %s\n", error.what());
  return 1;
}
