// Four kernels. The first finds the changes down the columns as bits, and counts those of each item and each
// group of columns; running sums over the groups, and then over the items, say where the runs of each begin.
// The last takes the changes of a group in their order: a change ends one run and begins the next, so its
// position is added to the one and taken from the other, whichever thread meets the other end.
#include "cuda/block_scan.cuh"
#include "masks/rle_encode.h"

namespace patchcut {
namespace {

constexpr int kThreads = 256;
constexpr int kScanThreads = 1024;
constexpr int kWordBits = 32;
// Counts of items and groups at most, 4 MiB: with more, groups grow from one column to several.
constexpr int64_t kCounts = int64_t{1} << 20;

// Ids of pixels from 1 to count, 0 outside; a mask has the id 1 alone.
template <class Pixel>
struct Image {
  const Pixel* pixels;  // [batch, height, width]
  int height;
  int width;
  int64_t count;

  __device__ int64_t area() const { return static_cast<int64_t>(height) * width; }

  __device__ int id_at(int x, int y) const {
    const Pixel value = pixels[blockIdx.y * area() + static_cast<int64_t>(y) * width + x];
    if (sizeof(Pixel) == 1) return value != 0;
    return value > 0 && value <= count ? static_cast<int>(value) : 0;
  }

  // Of the pixel before, down the columns.
  __device__ int id_before(int x, int y) const {
    if (y > 0) return id_at(x, y - 1);
    return x > 0 ? id_at(x - 1, height - 1) : 0;
  }
};

struct Changes {
  unsigned* bits;  // [batch, column_words, width], of kWordBits rows each
  int* counts;     // [items, groups]; later how many come before in the item
  int column_words;
  int groups;
  int columns;  // of a group

  __device__ unsigned* word(int width, int word, int x) const {
    return bits + (static_cast<int64_t>(blockIdx.y) * column_words + word) * width + x;
  }

  __device__ int* count_of(int64_t item, int group) const { return counts + item * groups + group; }
};

// Calls visit(item) for each item that a pixel leaves or enters.
template <class Pixel, class Visit>
__device__ void visit_items(const Image<Pixel>& image, int before, int here, const Visit& visit) {
  const int64_t first = blockIdx.y * image.count - 1;
  if (before != 0) visit(first + before);
  if (here != 0) visit(first + here);
}

// One thread: one word.
template <class Pixel>
__global__ void __launch_bounds__(kThreads) find_kernel(Image<Pixel> image, Changes changes) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= static_cast<int64_t>(changes.column_words) * image.width) return;
  const int word = static_cast<int>(index / image.width);
  const int x = static_cast<int>(index % image.width);
  const int group = x / changes.columns;
  const int first = word * kWordBits;
  const int rows = min(kWordBits, image.height - first);
  int before = image.id_before(x, first);
  unsigned bits = 0;
  for (int row = 0; row < rows; ++row) {
    const int here = image.id_at(x, first + row);
    if (here == before) continue;
    bits |= 1u << row;
    visit_items(image, before, here, [&](int64_t item) { atomicAdd(changes.count_of(item, group), 1); });
    before = here;
  }
  *changes.word(image.width, word, x) = bits;
}

// One block: one item, whose counts become how many come before. There is one run more than changes.
__global__ void __launch_bounds__(kThreads) sum_groups_kernel(Changes changes, int64_t* offsets) {
  int* counts = changes.count_of(blockIdx.x, 0);
  int before_chunk = 0;
  for (int first = 0; first < changes.groups; first += kThreads) {
    const int at = first + static_cast<int>(threadIdx.x);
    int total = 0;
    const int before = sum_before<kThreads>(at < changes.groups ? counts[at] : 0, &total);
    if (at < changes.groups) counts[at] = before_chunk + before;
    before_chunk += total;
  }
  if (threadIdx.x == 0) offsets[blockIdx.x + 1] = static_cast<int64_t>(before_chunk) + 1;
}

// One block: all items.
__global__ void __launch_bounds__(kScanThreads) sum_items_kernel(int64_t items, int64_t* offsets) {
  int64_t before_chunk = 0;
  for (int64_t first = 0; first < items; first += kScanThreads) {
    const int64_t at = first + threadIdx.x;
    const int64_t own = at < items ? offsets[at + 1] : 0;
    int64_t total = 0;
    const int64_t before = sum_before<kScanThreads>(own, &total);
    if (at < items) offsets[at + 1] = before_chunk + before + own;
    before_chunk += total;
  }
  if (threadIdx.x == 0) offsets[0] = 0;
}

// One thread: one group of columns. `runs` is zeros before.
template <class Pixel>
__global__ void __launch_bounds__(kThreads)
    write_kernel(Image<Pixel> image, Changes changes, int64_t items, RunLengths out) {
  const int group = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (group >= changes.groups || out.offsets[items] > out.capacity) return;
  const int first = group * changes.columns;
  const int end = min(first + changes.columns, image.width);
  for (int x = first; x < end; ++x) {
    for (int word = 0; word < changes.column_words; ++word) {
      for (unsigned bits = *changes.word(image.width, word, x); bits != 0; bits &= bits - 1) {
        const int y = word * kWordBits + __ffs(static_cast<int>(bits)) - 1;
        const unsigned at = static_cast<unsigned>(x) * static_cast<unsigned>(image.height) + y;
        visit_items(image, image.id_before(x, y), image.id_at(x, y), [&](int64_t item) {
          uint32_t* run = out.runs + out.offsets[item] + (*changes.count_of(item, group))++;
          atomicAdd(&run[0], at);
          atomicAdd(&run[1], 0u - at);
        });
      }
    }
  }
}

// One thread: the last run of one item, which ends with the image.
__global__ void __launch_bounds__(kThreads) end_kernel(int64_t items, uint32_t pixels, RunLengths out) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= items || out.offsets[items] > out.capacity) return;
  out.runs[out.offsets[item + 1] - 1] += pixels;
}

unsigned blocks_for(int64_t threads) { return static_cast<unsigned>(ceil_div<int64_t>(threads, kThreads)); }

template <class Pixel>
void encode(const Image<Pixel>& image, int64_t batch, const RunLengths& out, CudaQueue& queue) {
  const int64_t items = batch * image.count;
  const int64_t column_words = ceil_div(image.height, kWordBits);
  const int64_t columns = ceil_div<int64_t>(items * image.width, kCounts) + (items * image.width == 0);
  const int64_t groups = ceil_div<int64_t>(image.width, columns);
  const Changes changes{queue.take<unsigned>(batch * column_words * image.width),
                        queue.take<int>(items * groups), static_cast<int>(column_words),
                        static_cast<int>(groups), static_cast<int>(columns)};
  queue.clear(changes.counts, items * groups);
  queue.clear(out.runs, out.capacity);
  const unsigned batch_blocks = static_cast<unsigned>(items == 0 ? 0 : batch);
  launch(queue, find_kernel<Pixel>, dim3(blocks_for(column_words * image.width), batch_blocks), kThreads,
         image, changes);
  launch(queue, sum_groups_kernel, static_cast<unsigned>(items), kThreads, changes, out.offsets);
  launch(queue, sum_items_kernel, 1, kScanThreads, items, out.offsets);
  launch(queue, write_kernel<Pixel>, dim3(blocks_for(groups), batch_blocks), kThreads, image, changes, items,
         out);
  const auto pixels = static_cast<uint32_t>(static_cast<int64_t>(image.height) * image.width);
  launch(queue, end_kernel, blocks_for(items), kThreads, items, pixels, out);
}

}  // namespace

void rle_encode_cuda(const uint8_t* masks, int64_t batch, int64_t height, int64_t width,
                     const RunLengths& out, CudaQueue& queue) {
  encode(Image<uint8_t>{masks, static_cast<int>(height), static_cast<int>(width), 1}, batch, out, queue);
}

void rle_encode_ids_cuda(const int32_t* ids, int64_t batch, int64_t height, int64_t width, int64_t count,
                         const RunLengths& out, CudaQueue& queue) {
  encode(Image<int32_t>{ids, static_cast<int>(height), static_cast<int>(width), count}, batch, out, queue);
}

}  // namespace patchcut
