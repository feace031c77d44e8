#include "cpu/scratch.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "cpu/per_thread.h"

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

}  // namespace

struct Scratch::Arena {
  std::vector<Block> blocks;
  size_t block = 0;
  size_t offset = 0;

  void add_block(size_t least);
};

void Scratch::Arena::add_block(size_t least) {
  const size_t last = blocks.empty() ? kFirstBlock / 2 : blocks.back().bytes;
  const size_t size = std::max(least, 2 * last);
  std::unique_ptr<char, Free> memory(static_cast<char*>(std::aligned_alloc(kAlignment, size)));
  if (memory == nullptr) throw std::bad_alloc();
  blocks.push_back({std::move(memory), size});
}

Scratch::Scratch() : arena_(PerThread<Arena>::get()), block_(arena_.block), offset_(arena_.offset) {}

Scratch::~Scratch() {
  arena_.block = block_;
  arena_.offset = offset_;
}

void* Scratch::take_bytes(size_t bytes) {
  Arena& arena = arena_;
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  while (arena.block < arena.blocks.size() && arena.offset + bytes > arena.blocks[arena.block].bytes) {
    ++arena.block;
    arena.offset = 0;
  }
  if (arena.block == arena.blocks.size()) arena.add_block(bytes);
  void* memory = arena.blocks[arena.block].memory.get() + arena.offset;
  arena.offset += bytes;
  return memory;
}

}  // namespace patchcut
