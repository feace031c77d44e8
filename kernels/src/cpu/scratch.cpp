#include "cpu/scratch.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

namespace patchcut {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kFirstBlock = size_t{1} << 18;

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

struct Block {
  std::unique_ptr<char, Free> memory;
  size_t bytes;
};

struct Arena {
  std::vector<Block> blocks;
  size_t block = 0;
  size_t offset = 0;
};

thread_local Arena arena;

void add_block(size_t bytes) {
  const size_t last = arena.blocks.empty() ? kFirstBlock / 2 : arena.blocks.back().bytes;
  const size_t size = std::max(bytes, 2 * last);
  void* memory = std::aligned_alloc(kAlignment, size);
  if (memory == nullptr) throw std::bad_alloc();
  arena.blocks.push_back({std::unique_ptr<char, Free>(static_cast<char*>(memory)), size});
}

}  // namespace

Scratch::Scratch() : block_(arena.block), offset_(arena.offset) {}

Scratch::~Scratch() {
  arena.block = block_;
  arena.offset = offset_;
}

void* Scratch::take_bytes(size_t bytes) {
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  while (arena.block < arena.blocks.size() && arena.offset + bytes > arena.blocks[arena.block].bytes) {
    ++arena.block;
    arena.offset = 0;
  }
  if (arena.block == arena.blocks.size()) add_block(bytes);
  void* memory = arena.blocks[arena.block].memory.get() + arena.offset;
  arena.offset += bytes;
  return memory;
}

}  // namespace patchcut
