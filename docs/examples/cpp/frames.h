// Frames, and PPM files that hold one.
#pragma once

#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

struct SizeHw {
  int64_t height = 0, width = 0;
  int64_t area() const { return height * width; }
  bool operator!=(const SizeHw& other) const { return height != other.height || width != other.width; }
};

// [height, width, 3] uint8, in the order that the model says.
struct Frame {
  SizeHw size;
  std::vector<uint8_t> pixels;
};

inline void swap_red_and_blue(Frame& frame) {
  for (size_t i = 0; i + 2 < frame.pixels.size(); i += 3) std::swap(frame.pixels[i], frame.pixels[i + 2]);
}

// Binary PPM ("P6") with 8 bits a channel and no comments: RGB.
inline Frame read_ppm(const std::string& path, bool bgr) {
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
