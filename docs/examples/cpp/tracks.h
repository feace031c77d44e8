// Tracks: which region of a frame is which object of the frames before, by libpatchcut's `propagate`.
//
// As patchcut.video.Continuity and Tracker of the Python package do it, without their cuts of scenes, without
// dividing a region in which several objects meet, and without the calibration of scores.
#pragma once

#include <patchcut/patchcut.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <vector>

#include "regions.h"

class Tracks {
 public:
  // The assignment joined with that of the last frames: [n, labels], in this object's memory until the next
  // call. 0.8 of it is carried from them by the most similar patches.
  //   assignment: [n, labels] of the next frame.    features: [n, dim] of the same.
  const float* steady(const AssignmentShape& shape, const float* assignment, const float* features,
                      int64_t dim) {
    const auto n = shape.grid.area(), k = shape.labels;
    normalize(features, n, dim);
    steady_.assign(assignment, assignment + n * k);
    carried_.assign(n * columns(k), 0.0f);
    if (frames_ == 0) return steady_.data();
    patchcut_propagate_params params = PATCHCUT_PROPAGATE_DEFAULTS;
    params.radius = kRadius;
    params.topk = kTopk;
    check(patchcut_propagate(unit_.data(), PATCHCUT_FLOAT32, memory_.data(), PATCHCUT_FLOAT32, values_.data(),
                             1, kRecent, frames_, shape.grid.height, shape.grid.width, dim, columns(k),
                             &params, carried_.data(), nullptr));
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < k; ++j) {
        steady_[i * k + j] =
            kCarriedShare * carried_[i * columns(k) + j] + (1 - kCarriedShare) * assignment[i * k + j];
      }
    }
    return steady_.data();
  }

  // The track id of each of the regions that were found in the steady assignment; from 1, none is given
  // twice.
  const std::vector<int32_t>& follow(const AssignmentShape& shape, const Regions& regions) {
    const std::vector<Seen> seen = look(shape, regions);
    const std::vector<int> matched = match(seen, shape.labels);
    update(seen, matched);
    remember(seen, shape.labels);
    return ids_;
  }

 private:
  using Box = std::array<double, 4>;  // xyxy, as shares of the frame's width and height

  static constexpr float kCarriedShare = 0.8f;
  static constexpr int64_t kRecent = 3, kRadius = 8, kTopk = 10;
  static constexpr int kSamples = 4;  // of a patch along a side
  // A region continues a track that it overlaps by this much where that was carried to; or by the second
  // where that was going, if it looks the same; or wherever it is, if it looks very much so and the track is
  // lost.
  static constexpr double kCarriedIou = 0.1, kBoxIou = 0.3, kLike = 0.3, kVeryLike = 0.6;
  static constexpr int kConfirmed = 5, kPatience = 90, kPatienceUnconfirmed = 2;
  static constexpr double kPrototypeInertia = 0.9, kSpeedInertia = 0.7;

  struct Seen {
    std::vector<float> cover;      // [n], how much of each patch the region covers
    std::vector<float> prototype;  // [dim], the mean of its patches' features, less the frame's
    Box box;
  };

  struct Track {
    int32_t id;
    std::vector<float> prototype;
    Box box;
    std::array<double, 2> speed{};
    int seen = 1, missed = 0;

    bool confirmed() const { return seen >= kConfirmed; }
    bool over() const { return missed > (confirmed() ? kPatience : kPatienceUnconfirmed); }
    Box expected() const {
      const double steps = missed + 1, x = speed[0] * steps, y = speed[1] * steps;
      return {box[0] + x, box[1] + y, box[2] + x, box[3] + y};
    }
  };

  int64_t columns(int64_t k) const { return k + static_cast<int64_t>(tracks_.size()); }

  // Rows of norm 1, or of zeros.
  void normalize(const float* features, int64_t n, int64_t dim) {
    unit_.assign(features, features + n * dim);
    mean_.assign(dim, 0.0f);
    for (int64_t i = 0; i < n; ++i) {
      float* row = &unit_[i * dim];
      double squares = 0;
      for (int64_t j = 0; j < dim; ++j) squares += static_cast<double>(row[j]) * row[j];
      const auto scale = static_cast<float>(squares > 0 ? 1 / std::sqrt(squares) : 0);
      for (int64_t j = 0; j < dim; ++j) {
        row[j] *= scale;
        mean_[j] += row[j] / static_cast<float>(n);
      }
    }
  }

  // Each region by 16 pixels of each patch.
  std::vector<Seen> look(const AssignmentShape& shape, const Regions& regions) const {
    const SizeHw frame = shape.frame, grid = shape.grid;
    const auto width = static_cast<double>(frame.width), height = static_cast<double>(frame.height);
    std::vector<Seen> seen(regions.found.size());
    for (size_t i = 0; i < seen.size(); ++i) {
      const float* box = regions.found[i].box_xyxy;
      seen[i].cover.assign(grid.area(), 0.0f);
      seen[i].box = {box[0] / width, box[1] / height, box[2] / width, box[3] / height};
    }
    const int64_t rows = grid.height * kSamples, across = grid.width * kSamples;
    for (int64_t y = 0; y < rows; ++y) {
      const int64_t pixel_y = (2 * y + 1) * frame.height / (2 * rows);
      for (int64_t x = 0; x < across; ++x) {
        const int64_t pixel_x = (2 * x + 1) * frame.width / (2 * across);
        const int32_t id = regions.ids[pixel_y * frame.width + pixel_x];
        const int64_t patch = y / kSamples * grid.width + x / kSamples;
        if (id > 0) seen[id - 1].cover[patch] += 1.0f / (kSamples * kSamples);
      }
    }
    for (Seen& one : seen) one.prototype = prototype(one.cover);
    return seen;
  }

  std::vector<float> prototype(const std::vector<float>& cover) const {
    const size_t dim = mean_.size();
    std::vector<float> mean(dim, 0.0f);
    float total = 0;
    for (size_t i = 0; i < cover.size(); ++i) {
      if (cover[i] == 0) continue;
      total += cover[i];
      for (size_t j = 0; j < dim; ++j) mean[j] += cover[i] * unit_[i * dim + j];
    }
    for (size_t j = 0; j < dim; ++j) mean[j] = mean[j] / std::max(total, 1e-6f) - mean_[j];
    return mean;
  }

  // Of each region the place of the track that it continues, or -1; pairs that fit best come first.
  std::vector<int> match(const std::vector<Seen>& seen, int64_t k) const {
    struct Pair {
      double score;
      int track, region;
    };
    std::vector<Pair> pairs;
    for (int t = 0; t < static_cast<int>(tracks_.size()); ++t) {
      for (int r = 0; r < static_cast<int>(seen.size()); ++r) {
        const double score = fit(tracks_[t], carried(t, k), seen[r]);
        if (score > 0) pairs.push_back({score, t, r});
      }
    }
    std::stable_sort(pairs.begin(), pairs.end(),
                     [](const Pair& one, const Pair& other) { return one.score > other.score; });
    std::vector<int> matched(seen.size(), -1);
    std::vector<bool> taken(tracks_.size(), false);
    for (const Pair& pair : pairs) {
      if (matched[pair.region] >= 0 || taken[pair.track]) continue;
      matched[pair.region] = pair.track;
      taken[pair.track] = true;
    }
    return matched;
  }

  std::vector<float> carried(int track, int64_t k) const {
    const auto c = columns(k);
    std::vector<float> column(carried_.size() / c);
    for (size_t i = 0; i < column.size(); ++i) column[i] = carried_[i * c + k + track];
    return column;
  }

  // How well a region continues a track; 0 where it does not.
  static double fit(const Track& track, const std::vector<float>& carried, const Seen& seen) {
    double common = 0, either = 0;
    for (size_t i = 0; i < carried.size(); ++i) {
      common += std::min(carried[i], seen.cover[i]);
      either += std::max(carried[i], seen.cover[i]);
    }
    const double carried_iou = common / std::max(either, 1e-6);
    const double box_iou = overlap(track.expected(), seen.box);
    const double alike = cosine(track.prototype, seen.prototype);
    const bool lost = track.missed > 0 && track.confirmed();
    const bool fits =
        carried_iou > kCarriedIou || (box_iou > kBoxIou && alike > kLike) || (lost && alike > kVeryLike);
    return fits ? carried_iou + 0.5 * box_iou + 0.5 * std::max(alike, 0.0) : 0;
  }

  static double overlap(const Box& one, const Box& other) {
    const double width = std::min(one[2], other[2]) - std::max(one[0], other[0]);
    const double height = std::min(one[3], other[3]) - std::max(one[1], other[1]);
    if (width <= 0 || height <= 0) return 0;
    const auto area = [](const Box& box) { return (box[2] - box[0]) * (box[3] - box[1]); };
    return width * height / std::max(area(one) + area(other) - width * height, 1e-12);
  }

  static double cosine(const std::vector<float>& one, const std::vector<float>& other) {
    double product = 0, squares = 0, other_squares = 0;
    for (size_t i = 0; i < one.size(); ++i) {
      product += static_cast<double>(one[i]) * other[i];
      squares += static_cast<double>(one[i]) * one[i];
      other_squares += static_cast<double>(other[i]) * other[i];
    }
    const double norms = std::sqrt(squares * other_squares);
    return norms > 0 ? product / norms : 0;
  }

  // Tracks take what continues them, those out of sight for too long end, and new ones begin.
  void update(const std::vector<Seen>& seen, const std::vector<int>& matched) {
    ids_.assign(seen.size(), 0);
    for (Track& track : tracks_) ++track.missed;
    for (size_t i = 0; i < seen.size(); ++i) {
      if (matched[i] < 0) continue;
      see(tracks_[matched[i]], seen[i]);
      ids_[i] = tracks_[matched[i]].id;
    }
    before_.clear();
    std::vector<Track> left;
    for (size_t i = 0; i < tracks_.size(); ++i) {
      if (tracks_[i].over()) continue;
      before_[tracks_[i].id] = static_cast<int64_t>(i);
      left.push_back(std::move(tracks_[i]));
    }
    before_count_ = static_cast<int64_t>(tracks_.size());
    tracks_ = std::move(left);
    for (size_t i = 0; i < seen.size(); ++i) {
      if (ids_[i] != 0) continue;
      ids_[i] = next_id_++;
      tracks_.push_back({ids_[i], seen[i].prototype, seen[i].box});
    }
  }

  // `missed` counts this frame already.
  static void see(Track& track, const Seen& seen) {
    for (int side = 0; side < 2; ++side) {
      const double moved = (seen.box[side] + seen.box[side + 2] - track.box[side] - track.box[side + 2]) / 2;
      track.speed[side] = kSpeedInertia * track.speed[side] + (1 - kSpeedInertia) * moved / track.missed;
    }
    for (size_t j = 0; j < track.prototype.size(); ++j) {
      track.prototype[j] = static_cast<float>(kPrototypeInertia * track.prototype[j] +
                                              (1 - kPrototypeInertia) * seen.prototype[j]);
    }
    track.box = seen.box;
    track.missed = 0;
    ++track.seen;
  }

  // Keeps this frame, in place of the oldest: its steady assignment, and where each track is.
  void remember(const std::vector<Seen>& seen, int64_t k) {
    const auto n = static_cast<int64_t>(steady_.size()) / k, c = columns(k), old = k + before_count_;
    std::vector<float> values(kRecent * n * c, 0.0f);
    for (int64_t i = 0; i < frames_ * n; ++i) {
      std::copy_n(&values_[i * old], k, &values[i * c]);
      for (size_t t = 0; t < tracks_.size(); ++t) {
        const auto place = before_.find(tracks_[t].id);
        if (place != before_.end()) values[i * c + k + t] = values_[i * old + k + place->second];
      }
    }
    const int64_t slot = next_slot_;
    next_slot_ = (slot + 1) % kRecent;
    frames_ = std::min(frames_ + 1, kRecent);
    memory_.resize(kRecent * unit_.size());
    std::copy(unit_.begin(), unit_.end(), memory_.begin() + slot * static_cast<int64_t>(unit_.size()));
    for (int64_t i = 0; i < n; ++i) {
      float* row = &values[(slot * n + i) * c];
      std::fill_n(row, c, 0.0f);
      std::copy_n(&steady_[i * k], k, row);
      for (size_t t = 0; t < tracks_.size(); ++t) {
        const auto region = std::find(ids_.begin(), ids_.end(), tracks_[t].id) - ids_.begin();
        if (region < static_cast<int64_t>(ids_.size())) row[k + t] = seen[region].cover[i];
      }
    }
    values_ = std::move(values);
  }

  std::vector<Track> tracks_;
  std::map<int32_t, int64_t> before_;  // of the tracks that go on, their places among those before
  int64_t before_count_ = 0;
  int32_t next_id_ = 1;
  std::vector<int32_t> ids_;

  int64_t frames_ = 0, next_slot_ = 0;
  std::vector<float> memory_;  // [kRecent, n, dim]
  std::vector<float> values_;  // [kRecent, n, labels + tracks]
  std::vector<float> unit_, mean_, steady_, carried_;
};
