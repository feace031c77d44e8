// Segments the frames of a GStreamer pipeline, without Python.
//
//   gst_appsink model.onnx "v4l2src ! videoconvert"
//   gst_appsink model.onnx "filesrc location=video.mp4 ! decodebin"
//
// The pipeline's last element gives video of any format and size: it is converted and scaled to what the
// model takes. A live pipeline waits for nothing: what is late is dropped, and the newest frame is segmented.
#include <gst/app/gstappsink.h>
#include <gst/gst.h>
#include <gst/video/video.h>

#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>

#include "frames.h"
#include "model.h"
#include "regions.h"

namespace {

constexpr GstClockTime kPatience = 10 * GST_SECOND;

struct Unref {
  void operator()(GstElement* element) const {
    gst_element_set_state(element, GST_STATE_NULL);
    gst_object_unref(element);
  }
  void operator()(GstSample* sample) const { gst_sample_unref(sample); }
  void operator()(GstMessage* message) const { gst_message_unref(message); }
  void operator()(GstBus* bus) const { gst_object_unref(bus); }
  void operator()(GError* error) const { g_error_free(error); }
};
template <typename T>
using Owned = std::unique_ptr<T, Unref>;

// What went wrong in the pipeline, if anything did.
void check_bus(GstElement* pipeline) {
  const Owned<GstBus> bus(gst_element_get_bus(pipeline));
  const Owned<GstMessage> message(gst_bus_pop_filtered(bus.get(), GST_MESSAGE_ERROR));
  if (!message) return;
  GError* error = nullptr;
  gst_message_parse_error(message.get(), &error, nullptr);
  const Owned<GError> failure(error);
  throw std::runtime_error(failure->message);
}

// The pipeline with the sink "frames" at its end, which gives what the model takes.
Owned<GstElement> parse(const std::string& source, const Model& model) {
  const std::string caps = std::string("video/x-raw,format=") + (model.bgr() ? "BGR" : "RGB") +
                           ",width=" + std::to_string(model.shape().frame.width) +
                           ",height=" + std::to_string(model.shape().frame.height);
  const std::string text =
      source + " ! videoconvert ! videoscale ! " + caps + " ! appsink name=frames max-buffers=1 sync=false";
  GError* error = nullptr;
  Owned<GstElement> pipeline(gst_parse_launch(text.c_str(), &error));
  const Owned<GError> failure(error);
  if (failure) throw std::runtime_error(failure->message);
  return pipeline;
}

// Starts it; what a live source sends faster than it is segmented is dropped.
void start(GstElement* pipeline, GstAppSink* sink) {
  gst_element_set_state(pipeline, GST_STATE_PAUSED);
  const GstStateChangeReturn paused = gst_element_get_state(pipeline, nullptr, nullptr, kPatience);
  check_bus(pipeline);
  if (paused == GST_STATE_CHANGE_FAILURE || paused == GST_STATE_CHANGE_ASYNC) {
    throw std::runtime_error("the pipeline gives no frame");
  }
  gst_app_sink_set_drop(sink, paused == GST_STATE_CHANGE_NO_PREROLL);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
}

// The rows of a video frame, which may be padded, one after the other.
void copy_rows(GstSample* sample, Frame& frame) {
  GstVideoInfo info;
  GstVideoFrame mapped;
  if (!gst_video_info_from_caps(&info, gst_sample_get_caps(sample)) ||
      !gst_video_frame_map(&mapped, &info, gst_sample_get_buffer(sample), GST_MAP_READ)) {
    throw std::runtime_error("a frame cannot be read");
  }
  frame.size = {GST_VIDEO_FRAME_HEIGHT(&mapped), GST_VIDEO_FRAME_WIDTH(&mapped)};
  const size_t row = 3 * static_cast<size_t>(frame.size.width);
  frame.pixels.resize(row * frame.size.height);
  const auto* from = static_cast<const uint8_t*>(GST_VIDEO_FRAME_PLANE_DATA(&mapped, 0));
  for (int64_t y = 0; y < frame.size.height; ++y) {
    std::memcpy(&frame.pixels[row * y], from + y * GST_VIDEO_FRAME_PLANE_STRIDE(&mapped, 0), row);
  }
  gst_video_frame_unmap(&mapped);
}

void show(Model& model, const Frame& frame, GstClockTime time, int index) {
  static Regions regions;
  find(model.shape(), model.assign(frame), regions);
  const double seconds = GST_CLOCK_TIME_IS_VALID(time) ? static_cast<double>(time) / GST_SECOND : -1;
  std::printf("frame %d at %.3f s: %zu regions\n", index, seconds, regions.found.size());
  for (const Region& region : regions.found) {
    const float* box = region.box_xyxy;
    std::printf("  label %d, %lld pixels, box %g %g %g %g\n", region.label,
                static_cast<long long>(region.area), box[0], box[1], box[2], box[3]);
  }
}

}  // namespace

int main(int count, char** words) try {
  if (count != 3) {
    std::fprintf(stderr, "usage: gst_appsink MODEL.onnx \"SOURCE ! ...\"\n");
    return 2;
  }
  gst_init(nullptr, nullptr);
  Model model(words[1]);
  const Owned<GstElement> pipeline = parse(words[2], model);
  // The pipeline outlives it.
  GstAppSink* const sink = GST_APP_SINK(gst_bin_get_by_name(GST_BIN(pipeline.get()), "frames"));
  gst_object_unref(sink);
  start(pipeline.get(), sink);
  Frame frame;
  int index = 0;
  while (GstSample* pulled = gst_app_sink_pull_sample(sink)) {
    const Owned<GstSample> sample(pulled);
    copy_rows(sample.get(), frame);
    show(model, frame, GST_BUFFER_PTS(gst_sample_get_buffer(sample.get())), index++);
  }
  check_bus(pipeline.get());
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "gst_appsink: %s\n", error.what());
  return 1;
}
