// Arrays from .npy files, and to files of bare values.
#pragma once

#include <cstdint>
#include <fstream>
#include <iterator>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

struct FloatArray {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

inline std::vector<int64_t> numbers_in(const std::string& text) {
  std::vector<int64_t> numbers;
  const std::regex number("[0-9]+");
  for (std::sregex_iterator match(text.begin(), text.end(), number), end; match != end; ++match) {
    numbers.push_back(std::stoll(match->str()));
  }
  return numbers;
}

// Little-endian float32 in C order, version 1 of numpy's format.
inline FloatArray read_npy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char start[10];
  if (!file.read(start, 10) || std::string(start, 8) != std::string("\x93NUMPY\x01\x00", 8)) {
    throw std::runtime_error(path + " is missing, or no .npy file of version 1");
  }
  const int header_bytes = static_cast<uint8_t>(start[8]) + 256 * static_cast<uint8_t>(start[9]);
  std::string header(static_cast<size_t>(header_bytes), ' ');
  file.read(&header[0], header_bytes);
  std::smatch found;
  const std::regex expected("'descr': '<f4', 'fortran_order': False, 'shape': \\(([^)]*)\\)");
  if (!std::regex_search(header, found, expected)) {
    throw std::runtime_error(path + " must hold float32 in C order, got " + header);
  }
  FloatArray array{numbers_in(found[1]), {}};
  int64_t count = 1;
  for (const int64_t size : array.shape) count *= size;
  array.values.resize(static_cast<size_t>(count));
  const std::streamsize bytes = count * static_cast<std::streamsize>(sizeof(float));
  if (!file.read(reinterpret_cast<char*>(array.values.data()), bytes)) {
    throw std::runtime_error(path + " ends too early");
  }
  return array;
}

template <class T>
void write_values(const std::string& path, const std::vector<T>& values) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(T)));
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}
