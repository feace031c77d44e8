// A C++ program that has patchcut segment its own frames, in its own process, without a copy of them.
//
//   g++ -std=c++17 embed.cpp $(python3-config --embed --includes --ldflags) -o embed
//   ./embed "$(which python3)" 640 480 < frame.bgr
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <vector>

namespace {

// A Python object that is let go at the end of its scope; null is an exception of Python's.
class Ref {
 public:
  explicit Ref(PyObject* object) : object_(object) {
    if (object_ == nullptr) throw std::runtime_error("Python");
  }
  ~Ref() { Py_XDECREF(object_); }
  Ref(const Ref&) = delete;
  Ref& operator=(const Ref&) = delete;
  Ref(Ref&& other) noexcept : object_(other.object_) { other.object_ = nullptr; }
  PyObject* get() const { return object_; }
  Ref attribute(const char* name) const { return Ref(PyObject_GetAttrString(object_, name)); }

 private:
  PyObject* object_;
};

// The memory of a numpy array, where it lies; the array stays alive as long.
template <typename T>
class View {
 public:
  explicit View(const Ref& array) {
    if (PyObject_GetBuffer(array.get(), &buffer_, PyBUF_ND) != 0) throw std::runtime_error("Python");
  }
  ~View() { PyBuffer_Release(&buffer_); }
  View(const View&) = delete;
  View& operator=(const View&) = delete;
  const T* begin() const { return static_cast<const T*>(buffer_.buf); }
  const T* end() const { return begin() + buffer_.len / sizeof(T); }

 private:
  Py_buffer buffer_;
};

void start_python(const char* executable) {
  PyConfig config;
  PyConfig_InitPythonConfig(&config);
  // Of a virtual environment, so that its packages are found.
  PyStatus status = PyConfig_SetBytesString(&config, &config.executable, executable);
  if (!PyStatus_Exception(status)) status = Py_InitializeFromConfig(&config);
  PyConfig_Clear(&config);
  if (PyStatus_Exception(status)) Py_ExitStatusException(status);
}

// [height, width, 3] uint8 over memory of the program's own, which must outlive the result.
Ref frame_of(const std::vector<uint8_t>& pixels, int width, int height) {
  char* memory = reinterpret_cast<char*>(const_cast<uint8_t*>(pixels.data()));
  const Ref view(PyMemoryView_FromMemory(memory, pixels.size(), PyBUF_READ));
  const Ref numpy(PyImport_ImportModule("numpy"));
  const Ref flat(PyObject_CallMethod(numpy.get(), "frombuffer", "Os", view.get(), "uint8"));
  return Ref(PyObject_CallMethod(flat.get(), "reshape", "iii", height, width, 3));
}

void segment(const std::vector<uint8_t>& pixels, int width, int height) {
  const Ref patchcut(PyImport_ImportModule("patchcut"));
  const Ref segmenter(PyObject_CallMethod(patchcut.get(), "load", nullptr));
  const Ref frame = frame_of(pixels, width, height);
  const Ref result(PyObject_CallFunctionObjArgs(segmenter.get(), frame.get(), nullptr));  // once a frame

  const View<uint8_t> seen(result.attribute("frame"));
  const View<int32_t> region_ids(result.attribute("region_ids"));  // [height, width]
  const View<float> boxes(result.attribute("boxes"));              // [m, 4]
  const View<float> scores(result.attribute("scores"));            // [m]
  std::printf("frame %s\n", seen.begin() == pixels.data() ? "shared" : "copied");
  for (const float& score : scores) {
    const auto i = &score - scores.begin();
    const float* box = boxes.begin() + 4 * i;
    const auto area = std::count(region_ids.begin(), region_ids.end(), static_cast<int32_t>(i + 1));
    std::printf("%.4f %g %g %g %g %td\n", score, box[0], box[1], box[2], box[3], area);
  }
}

}  // namespace

int main(int count, char** words) {
  if (count != 4) {
    std::fprintf(stderr, "usage: embed PYTHON WIDTH HEIGHT < frame.bgr\n");
    return 2;
  }
  const int width = std::atoi(words[2]), height = std::atoi(words[3]);
  std::vector<uint8_t> pixels(3 * static_cast<size_t>(std::max(width, 0)) * std::max(height, 0));
  if (pixels.empty() || std::fread(pixels.data(), 1, pixels.size(), stdin) != pixels.size()) {
    std::fprintf(stderr, "embed: stdin holds less than a frame\n");
    return 2;
  }
  start_python(words[1]);
  try {
    segment(pixels, width, height);
  } catch (const std::runtime_error&) {
    PyErr_Print();
    return 1;
  }
  return Py_FinalizeEx() == 0 ? 0 : 1;
}
