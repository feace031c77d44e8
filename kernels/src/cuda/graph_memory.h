#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <map>
#include <vector>

namespace patchcut {

// Memory that ops take on one stream while it is captured: a graph must not allocate, so that what is taken
// meanwhile is the graph's own, and lives as long as this does. What is given back before the end is taken
// again: the graph does one thing after the other.
class GraphMemory {
 public:
  // Of the current device. Until `end`, `of(stream)` is this.
  explicit GraphMemory(cudaStream_t stream);
  ~GraphMemory();
  GraphMemory(const GraphMemory&) = delete;
  GraphMemory& operator=(const GraphMemory&) = delete;

  void end();
  void* take(const char* op, size_t bytes);

  // The one that has begun for a stream and not ended; null where there is none.
  static GraphMemory* of(cudaStream_t stream);
  // Whether memory is that of a graph, where it is given back to.
  static bool give_back(void* memory);

 private:
  cudaStream_t stream_;
  std::map<void*, size_t> blocks_;     // all there are, with their bytes
  std::multimap<size_t, void*> free_;  // those that may be taken
};

}  // namespace patchcut
