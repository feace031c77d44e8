// Segments pictures and videos in C++, without Python.
//
//   patchcut export fused default --out model.onnx --frame 512x512
//   segment model.onnx photo.ppm...      with OpenCV also photo.jpg and video.mp4
//
// Prints a line per region, and writes each frame's labels, [height, width] int32, to stdout with --labels.
#include <cstdio>
#include <exception>
#include <fstream>
#include <string>
#include <utility>

#include "model.h"
#include "regions.h"

#ifdef WITH_OPENCV
#include <opencv2/imgcodecs.hpp>
#include <opencv2/videoio.hpp>
#endif

namespace {

void swap_red_and_blue(Frame& frame) {
  for (size_t i = 0; i + 2 < frame.pixels.size(); i += 3) std::swap(frame.pixels[i], frame.pixels[i + 2]);
}

// Binary PPM ("P6") with 8 bits a channel and no comments: RGB.
Frame read_ppm(const std::string& path, bool bgr) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  int64_t width = 0, height = 0, largest = 0;
  file >> magic >> width >> height >> largest;
  constexpr int64_t kMostPixels = int64_t{1} << 28;
  if (magic != "P6" || largest != 255 || width < 1 || height < 1 || width > kMostPixels / height) {
    throw std::runtime_error(path + " is no PPM of 8 bits a channel; convert it with `convert x.jpg x.ppm`");
  }
  file.get();  // the white space before the pixels
  Frame frame{{height, width}, std::vector<uint8_t>(3 * width * height)};
  file.read(reinterpret_cast<char*>(frame.pixels.data()), static_cast<std::streamsize>(frame.pixels.size()));
  if (!file) throw std::runtime_error(path + " is cut short");
  if (bgr) swap_red_and_blue(frame);
  return frame;
}

void show(Model& model, const Frame& frame, const std::string& name, bool labels) {
  static Regions regions;
  find(model, model.assign(frame), regions);
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
