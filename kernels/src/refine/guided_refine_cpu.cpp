#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "cpu/errors.h"
#include "cpu/interrupt.h"
#include "cpu/runs.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"
#include "refine/guided_refine.h"
#include "refine/guided_simd.h"
#include "refine/guided_window.h"

namespace patchcut {
namespace {

constexpr int64_t kPadding = 16;     // elements that rows are longer than what they hold, see guided_simd.h
constexpr int64_t kChannels = 4;     // maps that share the work on the frame
constexpr int64_t kPlanes = 4;       // of coefficients: a of each color, b
constexpr int64_t kRowCycles = 16;   // about what a pixel of a row takes
constexpr int64_t kGuidePlanes = 9;  // of moments of the frame, and of what is made of them

int64_t padded(int64_t count) { return (count + kPadding - 1) / kPadding * kPadding + kPadding; }

struct Range {
  int64_t begin;
  int64_t end;

  int64_t size() const { return end - begin; }
};

Range widen(const Range& range, int64_t by, int64_t size) {
  return {std::max<int64_t>(0, range.begin - by), std::min(size, range.end + by)};
}

// "Rows" and "columns" are of the image that the filter sees: one of step x step pixels.
struct Job {
  const SimdTable& simd;
  const GuidedTable& loops;
  const uint8_t* frame;  // [height, width, 3]
  int64_t height;
  int64_t width;
  int64_t step;
  int64_t rows;
  int64_t columns;
  GuidedWindow window;
  float eps;               // for values of 0 to 255
  const int32_t* cells;    // [width + padding], see make_cells
  const float* fractions;  // [width + padding]
  const float* maps;       // [k, height, width], or null
  float* out;              // [k, height, width], or null
  const int32_t* labels;   // [height, width], or null
  int32_t* out_labels;     // [height, width], or null

  int64_t stride() const { return padded(columns + 2 * window.reach); }
  int64_t pixel_stride() const { return padded(width); }
  Range pixels_of(const Range& range, int64_t size) const {
    return {range.begin * step, std::min(size, range.end * step)};
  }
};

// One map. It is 0 outside columns [begin, end), and so is what becomes of it; it is filtered as if there
// were no others.
struct Channel {
  int64_t plane;  // of Job::maps, or
  int32_t label;  // of Job::labels
  Range columns;

  float* map;        // [source rows + 1, stride]; the last row is 0
  float* map_sums;   // [4, stride]
  float* ring;       // [ring rows, 4, stride], coefficients
  float* ring_sums;  // [4, stride]
  float* means;      // [mean rows, 4, stride], averaged coefficients where there is subsampling
};

// Rows that are worked on at once.
struct Strip {
  Range out;     // written
  Range means;   // whose averaged coefficients that takes
  Range source;  // of the frame and the maps, which those take
  int64_t ring_rows;
  int64_t channel_count;
  Channel channels[kChannels];

  int8_t* guide;      // [source rows + 1, 3, stride]; the last row is 0
  float* guide_sums;  // [9, stride]
  float* factors;     // [9, stride]
  float* zeros;       // [4, stride]
  float* boxed;       // [9, stride]
  float* work;        // [stride]
  float* line;        // [4, pixel stride]
  int8_t* pixels;     // [3, pixel stride]
  float* enter;       // [3, stride], a row of the guide
  float* leave;       // [3, stride]
  float* colors;      // [3, pixel stride]
  float* best;        // [pixel rows, width], the largest of the channels so far
  float* rest;        // [pixel rows, width], 1 less all channels so far
};

template <class T>
T* take_zeros(Scratch* scratch, int64_t count) {
  T* memory = scratch->take<T>(count);
  std::fill_n(memory, count, T{0});
  return memory;
}

Strip make_strip(const Job& job, const Range& out, Scratch* scratch) {
  Strip s{};
  s.out = out;
  s.means = widen(out, job.step > 1 ? 1 : 0, job.rows);
  s.source = widen(s.means, 2 * job.window.reach, job.rows);
  s.ring_rows = std::min(job.rows, 2 * job.window.reach + 2);
  const int64_t stride = job.stride();
  s.guide = scratch->take<int8_t>((s.source.size() + 1) * 3 * stride);
  std::fill_n(s.guide + s.source.size() * 3 * stride, 3 * stride, static_cast<int8_t>(0));
  s.guide_sums = scratch->take<float>(kGuidePlanes * stride);
  s.factors = scratch->take<float>(kGuidePlanes * stride);
  s.zeros = take_zeros<float>(scratch, kPlanes * stride);
  s.boxed = take_zeros<float>(scratch, kGuidePlanes * stride);
  s.work = take_zeros<float>(scratch, stride);
  s.line = take_zeros<float>(scratch, kPlanes * job.pixel_stride());
  s.pixels = take_zeros<int8_t>(scratch, 3 * job.pixel_stride());
  s.enter = take_zeros<float>(scratch, 3 * stride);
  s.leave = take_zeros<float>(scratch, 3 * stride);
  s.colors = take_zeros<float>(scratch, 3 * job.pixel_stride());
  return s;
}

void add_channel(const Job& job, int64_t plane, int32_t label, const Range& columns, Strip* strip,
                 Scratch* scratch) {
  const int64_t stride = job.stride();
  const int64_t source_rows = strip->source.size();
  Channel& c = strip->channels[strip->channel_count++];
  c = {plane, label, columns, nullptr, nullptr, nullptr, nullptr, nullptr};
  c.map = scratch->take<float>((source_rows + 1) * stride);
  std::fill_n(c.map + source_rows * stride, stride, 0.0f);
  c.map_sums = scratch->take<float>(kPlanes * stride);
  c.ring = scratch->take<float>(strip->ring_rows * kPlanes * stride);
  c.ring_sums = scratch->take<float>(kPlanes * stride);
  if (job.step > 1) c.means = scratch->take<float>(strip->means.size() * kPlanes * stride);
}

// Fills the ends of a row that holds `count` values after `reach` free ones.
template <class T>
void reflect_ends(int64_t count, int64_t reach, int64_t stride, T* row) {
  for (int64_t i = 1; i <= reach; ++i) {
    row[reach - i] = row[reach + reflect_index(-i, count)];
    row[reach + count + i - 1] = row[reach + reflect_index(count + i - 1, count)];
  }
  std::fill(row + count + 2 * reach, row + stride, T{0});
}

void load_guide_row(const Job& job, int64_t row, int8_t* planes) {
  const int64_t stride = job.stride();
  const int64_t reach = job.window.reach;
  const uint8_t* pixels = job.frame + std::min(row * job.step + job.step / 2, job.height - 1) * job.width * 3;
  if (job.step == 1) {
    job.loops.split_channels(job.columns, pixels, planes + reach, stride);
  } else {
    for (int64_t i = 0; i < job.columns; ++i) {
      const uint8_t* pixel = pixels + 3 * std::min(i * job.step + job.step / 2, job.width - 1);
      for (int c = 0; c < 3; ++c) planes[c * stride + reach + i] = static_cast<int8_t>(pixel[c] ^ 0x80);
    }
  }
  for (int c = 0; c < 3; ++c) reflect_ends(job.columns, reach, stride, planes + c * stride);
}

// The channel's map at the pixels of one row of the frame.
void load_map_pixels(const Job& job, const Channel& channel, int64_t y, const Range& x, float* out) {
  const int64_t first = y * job.width + x.begin;
  if (job.labels != nullptr) {
    job.loops.indicator_row(x.size(), job.labels + first, channel.label, out);
  } else {
    std::copy_n(job.maps + channel.plane * job.height * job.width + first, x.size(), out);
  }
}

// The mean over step x step pixels, of which the last ones may lie outside.
void load_map_row(const Job& job, const Channel& channel, int64_t row, float* line, float* out) {
  const Range x = job.pixels_of(channel.columns, job.width);
  const Range y = job.pixels_of({row, row + 1}, job.height);
  const int64_t count = channel.columns.size();
  float* values = out + job.window.reach;
  if (job.step == 1) {
    load_map_pixels(job, channel, row, x, values);
  } else {
    float* total = line + job.pixel_stride();
    std::fill_n(total, x.size(), 0.0f);
    for (int64_t at = y.begin; at < y.end; ++at) {
      load_map_pixels(job, channel, at, x, line);
      for (int64_t i = 0; i < x.size(); ++i) total[i] += line[i];
    }
    for (int64_t i = 0; i < count; ++i) {
      const int64_t end = std::min(x.size(), (i + 1) * job.step);
      float sum = 0.0f;
      for (int64_t at = i * job.step; at < end; ++at) sum += total[at];
      values[i] = sum / static_cast<float>((end - i * job.step) * y.size());
    }
  }
  reflect_ends(count, job.window.reach, job.stride(), out);
}

void load_source(const Job& job, const Strip& strip) {
  InterruptPoll poll;
  for (int64_t row = 0; row < strip.source.size(); ++row) {
    poll.spend(job.step * job.width * strip.channel_count);
    load_guide_row(job, strip.source.begin + row, strip.guide + row * 3 * job.stride());
    for (int64_t c = 0; c < strip.channel_count; ++c) {
      const Channel& channel = strip.channels[c];
      load_map_row(job, channel, strip.source.begin + row, strip.line, channel.map + row * job.stride());
    }
  }
}

constexpr int64_t kNone = -1;

// Brings sums over the window around row - 1 to the one around row, or starts them: calls
// add(row that enters, row that leaves or kNone, weight).
template <class Add>
void move_window(const Job& job, int64_t row, bool start, const Add& add) {
  const GuidedWindow& w = job.window;
  const auto at = [&](int64_t i) { return reflect_index(row + i, job.rows); };
  if (start) {
    InterruptPoll poll;
    for (int64_t i = -w.inner; i <= w.inner; ++i) {
      poll.spend(kRowCycles * job.stride());
      add(at(i), kNone, 1.0f);
    }
    if (w.edge == 0.0f) return;
    add(at(-w.reach), kNone, w.edge);
    add(at(w.reach), kNone, w.edge);
    return;
  }
  add(at(w.inner), at(-w.reach), 1.0f - w.edge);
  if (w.edge != 0.0f) add(at(w.reach), at(-w.reach - 1), w.edge);
}

const int8_t* guide_row(const Job& job, const Strip& strip, int64_t row) {
  const int64_t at = row == kNone ? strip.source.size() : row - strip.source.begin;
  return strip.guide + at * 3 * job.stride();
}

const float* map_row(const Job& job, const Strip& strip, const Channel& channel, int64_t row) {
  const int64_t at = row == kNone ? strip.source.size() : row - strip.source.begin;
  return channel.map + at * job.stride();
}

float* ring_row(const Job& job, const Strip& strip, const Channel& channel, int64_t row) {
  return channel.ring + (row % strip.ring_rows) * kPlanes * job.stride();
}

// Moves the moments of the frame and of all maps to the window around a row.
void slide_moments(const Job& job, const Strip& strip, int64_t row, bool start) {
  const int64_t stride = job.stride();
  if (start) {
    std::fill_n(strip.guide_sums, kGuidePlanes * stride, 0.0f);
    for (int64_t c = 0; c < strip.channel_count; ++c) {
      std::fill_n(strip.channels[c].map_sums, kPlanes * stride, 0.0f);
    }
  }
  move_window(job, row, start, [&](int64_t enter, int64_t leave, float weight) {
    job.loops.widen_planes(stride, guide_row(job, strip, enter), stride, strip.enter);
    job.loops.widen_planes(stride, guide_row(job, strip, leave), stride, strip.leave);
    job.loops.slide_guide_sums(job.columns + 2 * job.window.reach, weight, strip.enter, strip.leave,
                               strip.guide_sums, stride);
    for (int64_t c = 0; c < strip.channel_count; ++c) {
      const Channel& channel = strip.channels[c];
      const int64_t first = channel.columns.begin;
      job.loops.slide_map_sums(channel.columns.size() + 2 * job.window.reach, weight, strip.enter + first,
                               strip.leave + first, stride, map_row(job, strip, channel, enter),
                               map_row(job, strip, channel, leave), channel.map_sums, stride);
    }
  });
}

void box_planes(const Job& job, const Strip& strip, int64_t count, int64_t planes, const float* sums) {
  for (int64_t i = 0; i < planes; ++i) {
    job.loops.box_row(count, job.window.inner, job.window.edge, sums + i * job.stride(), strip.work,
                      strip.boxed + i * job.stride());
  }
}

void coefficient_row(const Job& job, const Strip& strip, const Channel& channel, int64_t row) {
  const int64_t stride = job.stride();
  const int64_t count = channel.columns.size();
  box_planes(job, strip, count, kPlanes, channel.map_sums);
  float* planes = ring_row(job, strip, channel, row);
  job.loops.solve_row(count, job.window.scale, strip.factors + channel.columns.begin, stride, strip.boxed,
                      stride, planes + job.window.reach, stride);
  for (int64_t i = 0; i < kPlanes; ++i) reflect_ends(count, job.window.reach, stride, planes + i * stride);
}

// The coefficients of all maps at a row.
void solve_row(const Job& job, const Strip& strip, int64_t row, bool start) {
  slide_moments(job, strip, row, start);
  box_planes(job, strip, job.columns, kGuidePlanes, strip.guide_sums);
  job.loops.factor_guide_row(job.columns, job.window.scale, job.eps, strip.boxed, strip.factors,
                             job.stride());
  for (int64_t c = 0; c < strip.channel_count; ++c) coefficient_row(job, strip, strip.channels[c], row);
}

// Leaves the sums of the coefficients around each pixel of a row in strip.boxed.
void average_row(const Job& job, const Strip& strip, const Channel& channel, int64_t row, bool start) {
  const int64_t elements = kPlanes * job.stride();
  if (start) std::fill_n(channel.ring_sums, elements, 0.0f);
  move_window(job, row, start, [&](int64_t enter, int64_t leave, float weight) {
    job.loops.slide_sums(elements, weight, ring_row(job, strip, channel, enter),
                         leave == kNone ? strip.zeros : ring_row(job, strip, channel, leave),
                         channel.ring_sums);
  });
  box_planes(job, strip, channel.columns.size(), kPlanes, channel.ring_sums);
}

// Calls write(target) with where the values of a row of pixels go, and keeps those that win where the maps
// are labels.
template <class Write>
void write_pixels(const Job& job, const Strip& strip, const Channel& channel, int64_t y, const Write& write) {
  const Range x = job.pixels_of(channel.columns, job.width);
  if (job.labels == nullptr) {
    write(job.out + (channel.plane * job.height + y) * job.width + x.begin);
    return;
  }
  write(strip.line);
  const int64_t at = (y - strip.out.begin * job.step) * job.width + x.begin;
  job.loops.argmax_row(x.size(), strip.line, channel.label, strip.best + at, strip.rest + at,
                       job.out_labels + y * job.width + x.begin);
}

// With the colors of the row in strip.enter.
void apply_row(const Job& job, const Strip& strip, const Channel& channel, int64_t row) {
  const float* guide = strip.enter + job.window.reach + channel.columns.begin;
  write_pixels(job, strip, channel, row, [&](float* target) {
    job.loops.apply_row(channel.columns.size(), job.window.scale, guide, job.stride(), strip.boxed,
                        job.stride(), target);
  });
}

// Keeps averaged coefficients with the first and the last once more at the ends.
void keep_means(const Job& job, const Strip& strip, const Channel& channel, int64_t row) {
  const int64_t count = channel.columns.size();
  float* means = channel.means + (row - strip.means.begin) * kPlanes * job.stride();
  for (int64_t i = 0; i < kPlanes; ++i) {
    float* plane = means + i * job.stride();
    job.simd.scale_row(count, strip.boxed + i * job.stride(), job.window.scale, plane + 1);
    plane[0] = plane[1];
    std::fill(plane + 1 + count, plane + job.stride(), plane[count]);
  }
}

void filter(const Job& job, const Strip& strip) {
  const int64_t reach = job.window.reach;
  const int64_t first = std::max<int64_t>(0, strip.means.begin - reach);
  int64_t next = first;
  InterruptPoll poll;
  for (int64_t row = strip.means.begin; row < strip.means.end; ++row) {
    for (; next < std::min(job.rows, row + reach + 1); ++next) {
      poll.spend(kRowCycles * job.stride());
      solve_row(job, strip, next, next == first);
    }
    poll.spend(kRowCycles * job.stride());
    job.loops.widen_planes(job.stride(), guide_row(job, strip, row), job.stride(), strip.enter);
    for (int64_t c = 0; c < strip.channel_count; ++c) {
      average_row(job, strip, strip.channels[c], row, row == strip.means.begin);
      if (job.step == 1) {
        apply_row(job, strip, strip.channels[c], row);
      } else {
        keep_means(job, strip, strip.channels[c], row);
      }
    }
  }
}

// Pixels lie between columns: cell c is between columns c - 1 and c, with the border columns doubled.
void make_cells(int64_t width, int64_t step, int32_t* cells, float* fractions) {
  for (int64_t x = 0; x < width + kPadding; ++x) {
    const double at = (static_cast<double>(2 * std::min(x, width - 1)) - static_cast<double>(step - 1)) /
                      static_cast<double>(2 * step);
    const double low = std::floor(at);
    cells[x] = static_cast<int32_t>(low) + 1;
    fractions[x] = static_cast<float>(at - low);
  }
}

void apply_upsampled(const Job& job, const Strip& strip) {
  const Range y_range = job.pixels_of(strip.out, job.height);
  const int64_t stride = job.stride();
  float* blended = strip.boxed;
  InterruptPoll poll;
  for (int64_t y = y_range.begin; y < y_range.end; ++y) {
    poll.spend(kRowCycles * job.width);
    job.loops.split_channels(job.width, job.frame + y * job.width * 3, strip.pixels, job.pixel_stride());
    job.loops.widen_planes(job.width, strip.pixels, job.pixel_stride(), strip.colors);
    const double at = static_cast<double>(2 * y - (job.step - 1)) / static_cast<double>(2 * job.step);
    const int64_t low = static_cast<int64_t>(std::floor(at));
    const float fraction = static_cast<float>(at - static_cast<double>(low));
    for (int64_t c = 0; c < strip.channel_count; ++c) {
      const Channel& channel = strip.channels[c];
      const auto means = [&](int64_t row) {
        row = std::min(std::max<int64_t>(row, 0), job.rows - 1);
        return channel.means + (row - strip.means.begin) * kPlanes * stride;
      };
      job.loops.blend_rows(kPlanes * stride, means(low), means(low + 1), 1.0f - fraction, fraction, blended);
      const Range x = job.pixels_of(channel.columns, job.width);
      write_pixels(job, strip, channel, y, [&](float* target) {
        job.loops.upsample_apply_row(x.size(), job.cells + x.begin, job.fractions + x.begin,
                                     strip.colors + x.begin, job.pixel_stride(), channel.columns.begin,
                                     blended, stride, target);
      });
    }
  }
}

void run_strip(const Job& job, const Strip& strip) {
  load_source(job, strip);
  filter(job, strip);
  if (job.step > 1) apply_upsampled(job, strip);
}

void refine_maps(const Job& job, const Range& out, int64_t k) {
  for (int64_t plane = 0; plane < k; plane += kChannels) {
    Scratch scratch;
    Strip strip = make_strip(job, out, &scratch);
    for (int64_t i = plane; i < std::min(k, plane + kChannels); ++i) {
      add_channel(job, i, 0, {0, job.columns}, &strip, &scratch);
    }
    run_strip(job, strip);
  }
}

// Pixels of one label: in a run, or in a whole strip.
struct Area {
  int32_t label;
  Range x;
  int64_t pixels;
};

// The labels in rows of pixels, ascending; returns how many.
int64_t find_labels(const Job& job, const Range& y, Area* areas, int64_t runs) {
  Area* at = areas;
  for (int64_t row = y.begin; row < y.end; ++row) {
    const int32_t* labels = job.labels + row * job.width;
    for (int64_t x = 0, end = 0; x < job.width; x = end, ++at) {
      end = run_end(labels, x, job.width);
      *at = {labels[x], {x, end}, end - x};
    }
  }
  InterruptPoll poll;
  std::sort(areas, at, [&poll](const Area& a, const Area& b) {
    poll.spend(8);
    return a.label < b.label;
  });
  int64_t count = 0;
  for (const Area* run = areas; run != areas + runs; ++run) {
    if (count == 0 || areas[count - 1].label != run->label) {
      areas[count++] = *run;
      continue;
    }
    Area& area = areas[count - 1];
    area.x = {std::min(area.x.begin, run->x.begin), std::max(area.x.end, run->x.end)};
    area.pixels += run->pixels;
  }
  return count;
}

int64_t count_runs(const Job& job, const Range& y) {
  int64_t count = 0;
  for (int64_t row = y.begin; row < y.end; ++row) {
    for (int64_t x = 0; x < job.width; ++count) x = run_end(job.labels + row * job.width, x, job.width);
  }
  return count;
}

// Indicators sum to 1 before and after the filter, so that the largest label's own is never filtered.
void refine_labels(const Job& job, const Range& out) {
  Scratch scratch;
  Strip strip = make_strip(job, out, &scratch);
  const Range source = job.pixels_of(strip.source, job.height);
  const Range y = job.pixels_of(out, job.height);
  const int64_t first = y.begin * job.width;
  const int64_t pixels = y.size() * job.width;
  const int64_t runs = count_runs(job, source);
  Area* areas = scratch.take<Area>(runs);
  const int64_t labels = find_labels(job, source, areas, runs);
  const Area* largest = std::max_element(areas, areas + labels,
                                         [](const Area& a, const Area& b) { return a.pixels < b.pixels; });
  std::fill_n(job.out_labels + first, pixels, largest->label);
  if (labels == 1) return;
  strip.best = scratch.take<float>(pixels);
  strip.rest = scratch.take<float>(pixels);
  std::fill_n(strip.best, pixels, std::numeric_limits<float>::lowest());
  std::fill_n(strip.rest, pixels, 1.0f);
  for (const Area* area = areas; area != areas + labels;) {
    Scratch for_channels;
    strip.channel_count = 0;
    for (; area != areas + labels && strip.channel_count < kChannels; ++area) {
      if (area == largest) continue;
      const Range columns{area->x.begin / job.step, (area->x.end - 1) / job.step + 1};
      // Two windows and the cell of the upsampling away, the filtered indicator is 0.
      add_channel(job, 0, area->label, widen(columns, 2 * job.window.reach + 1, job.columns), &strip,
                  &for_channels);
    }
    run_strip(job, strip);
  }
  job.loops.argmax_rest_row(pixels, strip.best, strip.rest, largest->label, job.out_labels + first);
}

Job make_job(const uint8_t* frame, int64_t height, int64_t width, const patchcut_guided_refine_params& params,
             Scratch* scratch) {
  const int64_t step = params.subsample;
  const SimdTable& table = simd();
  Job job{table,
          table.get<GuidedTable>(),
          frame,
          height,
          width,
          step,
          (height + step - 1) / step,
          (width + step - 1) / step,
          make_guided_window(params.radius, step),
          params.eps * 255.0f * 255.0f,
          nullptr,
          nullptr,
          nullptr,
          nullptr,
          nullptr,
          nullptr};
  if (step == 1) return job;
  int32_t* cells = scratch->take<int32_t>(width + kPadding);
  float* fractions = scratch->take<float>(width + kPadding);
  make_cells(width, step, cells, fractions);
  job.cells = cells;
  job.fractions = fractions;
  return job;
}

// Strips depend on sizes alone: what a sum has rounded away depends on where it was started.
template <class RefineStrip>
void for_each_strip(const Job& job, const RefineStrip& refine_strip) {
  // Two windows of rows on each side are worked on by two strips.
  const int64_t strip_rows = std::max<int64_t>(job.step == 1 ? 64 : 32, 4 * job.window.reach);
  const int64_t strips = (job.rows + strip_rows - 1) / strip_rows;
  parallel_for(strips, strip_rows * job.width * job.step, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      refine_strip(Range{i * strip_rows, std::min(job.rows, (i + 1) * strip_rows)});
    }
  });
}

void check_maps(const SimdTable& simd, int64_t rows, int64_t width, const float* maps) {
  std::atomic<bool> finite{true};
  std::atomic<bool> small{true};
  parallel_for(rows, width / 4, [&](int64_t begin, int64_t end) {
    const float largest = simd.largest_magnitude((end - begin) * width, maps + begin * width);
    if (!std::isfinite(largest)) finite.store(false, std::memory_order_relaxed);
    if (largest > kLargestGuidedMap) small.store(false, std::memory_order_relaxed);
  });
  require_finite(finite, "guided_refine", "maps");
  require(small, "guided_refine",
          "maps must be at most 1e12 in magnitude: sums over windows must fit float32");
}

}  // namespace

void guided_refine_cpu(const uint8_t* frame, const float* maps, int64_t k, int64_t height, int64_t width,
                       const patchcut_guided_refine_params& params, float* out) {
  if (height == 0 || width == 0) return;
  check_maps(simd(), k * height, width, maps);
  Scratch scratch;
  Job job = make_job(frame, height, width, params, &scratch);
  job.maps = maps;
  job.out = out;
  for_each_strip(job, [&](const Range& rows) { refine_maps(job, rows, k); });
}

void guided_refine_labels_cpu(const uint8_t* frame, const int32_t* label_map, int64_t height, int64_t width,
                              const patchcut_guided_refine_params& params, int32_t* out) {
  if (height == 0 || width == 0) return;
  Scratch scratch;
  Job job = make_job(frame, height, width, params, &scratch);
  job.labels = label_map;
  job.out_labels = out;
  for_each_strip(job, [&](const Range& rows) { refine_labels(job, rows); });
}

}  // namespace patchcut
