#include <algorithm>
#include <vector>

#include "cpu/interrupt.h"
#include "cpu/per_thread.h"
#include "cpu/runs.h"
#include "cpu/thread_pool.h"
#include "masks/connected_components.h"

namespace patchcut {
namespace {

struct Run {
  int64_t begin;
  int64_t end;
  int64_t parent;  // an earlier run of the same component, or itself
  int32_t label;
};

// Kept between frames, so that a stream allocates nothing; about 45 bytes a run.
struct Work {
  std::vector<Run> runs;
  std::vector<int64_t> row_starts;  // [height + 1], index of each row's first run
  std::vector<int64_t> areas;       // by run; only roots are used
  std::vector<int32_t> names;       // by run; only roots are used
};

// A map of noise, which needs up to 23 bytes a pixel, must not cost its memory for as long as the thread
// lives.
void release_excess(Work& work) {
  constexpr size_t kKeptRuns = size_t{1} << 16;
  if (work.runs.capacity() > std::max(kKeptRuns, 4 * work.runs.size())) work = Work();
}

int64_t find_root(std::vector<Run>& runs, int64_t run) {
  while (runs[run].parent != run) {
    runs[run].parent = runs[runs[run].parent].parent;
    run = runs[run].parent;
  }
  return run;
}

// The earlier root stays, so that a root is its component's first run in scan order.
void join(std::vector<Run>& runs, int64_t a, int64_t b) {
  a = find_root(runs, a);
  b = find_root(runs, b);
  if (a < b) {
    runs[b].parent = a;
  } else {
    runs[a].parent = b;
  }
}

void find_runs(const int32_t* row, int64_t width, std::vector<Run>& runs) {
  for (int64_t x = 0; x < width;) {
    const int64_t end = run_end(row, x, width);
    if (row[x] != 0) runs.push_back({x, end, static_cast<int64_t>(runs.size()), row[x]});
    x = end;
  }
}

// Both rows are walked together; `reach` is 1 where corners touch. An upper run stays a candidate for as long
// as the next lower run may touch it too.
void join_rows(std::vector<Run>& runs, int64_t above, int64_t above_end, int64_t below_end, int64_t reach) {
  for (int64_t below = above_end; below < below_end; ++below) {
    while (above < above_end && runs[above].end + reach <= runs[below].begin) ++above;
    for (int64_t a = above; a < above_end && runs[a].begin < runs[below].end + reach; ++a) {
      if (runs[a].label == runs[below].label) join(runs, a, below);
    }
  }
}

void find_components(const int32_t* label_map, int64_t height, int64_t width, int64_t reach, Work& work) {
  work.runs.clear();
  work.row_starts.assign(1, 0);
  InterruptPoll poll;
  for (int64_t y = 0; y < height; ++y) {
    poll.spend(width);
    const int64_t first = static_cast<int64_t>(work.runs.size());
    find_runs(label_map + y * width, width, work.runs);
    const int64_t end = static_cast<int64_t>(work.runs.size());
    if (y > 0) join_rows(work.runs, work.row_starts[y - 1], first, end, reach);
    work.row_starts.push_back(end);
  }
}

int64_t name_components(int64_t min_area, Work& work) {
  const int64_t count = static_cast<int64_t>(work.runs.size());
  work.areas.assign(count, 0);
  work.names.resize(count);
  InterruptPoll poll;
  for (int64_t r = 0; r < count; ++r) {
    poll.spend(8);
    const int64_t root = find_root(work.runs, r);
    work.runs[r].parent = root;
    work.areas[root] += work.runs[r].end - work.runs[r].begin;
  }
  int32_t kept = 0;
  for (int64_t r = 0; r < count; ++r) {
    if (work.runs[r].parent == r) work.names[r] = work.areas[r] >= min_area ? ++kept : 0;
  }
  return kept;
}

// Fills a row of `out` from its runs; the gaps are background.
template <class Value>
void write_row(const Run* run, const Run* last, int64_t width, int32_t* out, const Value& value) {
  int64_t x = 0;
  for (; run != last; x = run->end, ++run) {
    std::fill(out + x, out + run->begin, 0);
    std::fill(out + run->begin, out + run->end, value(*run));
  }
  std::fill(out + x, out + width, 0);
}

void write_maps(const Work& found, int64_t height, int64_t width, int32_t* ids, int32_t* kept_labels,
                bool in_place) {
  parallel_for(height, width / 4, [&](int64_t begin, int64_t end) {
    for (int64_t y = begin; y < end; ++y) {
      const Run* first = found.runs.data() + found.row_starts[y];
      const Run* last = found.runs.data() + found.row_starts[y + 1];
      const auto name = [&](const Run& run) { return found.names[run.parent]; };
      write_row(first, last, width, ids + y * width, name);
      if (kept_labels == nullptr) continue;
      int32_t* labels = kept_labels + y * width;
      if (!in_place) {
        write_row(first, last, width, labels, [&](const Run& run) { return name(run) == 0 ? 0 : run.label; });
        continue;
      }
      for (const Run* run = first; run != last; ++run) {
        if (name(*run) == 0) std::fill(labels + run->begin, labels + run->end, 0);
      }
    }
  });
}

}  // namespace

int64_t connected_components_cpu(const int32_t* label_map, int64_t height, int64_t width, bool diagonal,
                                 int64_t min_area, int32_t* ids, int32_t* kept_labels) {
  Work& work = PerThread<Work>::get();
  find_components(label_map, height, width, diagonal ? 1 : 0, work);
  const int64_t count = name_components(min_area, work);
  write_maps(work, height, width, ids, kept_labels, kept_labels == label_map);
  release_excess(work);
  return count;
}

}  // namespace patchcut
